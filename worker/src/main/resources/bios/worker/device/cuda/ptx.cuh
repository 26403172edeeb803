// Every instruction that C++ has no word for, each in one small inline function. Nothing else is here: the
// emulated device has its own file of this name with the same functions.
#pragma once

/// Two floats rounded to nearest even: the bits of `low` in the lower half.
__device__ inline unsigned packBf16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
