#!/bin/sh
# Builds the emulated CUDA device: build.sh FOLDER. Needs g++.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
to=$(cd "$1" && pwd)
{
    echo 'extern "C" int emu_unsupported(const char*);'
    sed 's/.*/extern "C" __attribute__((weak)) int &() { return emu_unsupported("&"); }/' "$here/driver-symbols.txt"
} > "$to/unsupported.cpp"
cp "$here"/shim.h "$here"/emu.h "$here"/ptx.cuh "$here"/wgmma.cuh "$here"/clusters.cuh "$to"/
flags="-std=c++20 -O2 -g1 -fPIC -Wall -Wextra -march=native -ffp-contract=off -fno-strict-aliasing -fno-semantic-interposition -pthread"
printf '%s\n' "$here"/driver.cpp "$here"/runtime.cpp "$here"/memory.cpp "$here"/nvrtc.cpp "$here"/cublaslt.cpp "$here"/nvml.cpp "$to"/unsupported.cpp |
    xargs -P "$(nproc)" -I FILE sh -c 'g++ $0 -c FILE -o "$1/$(basename FILE .cpp).o"' "$flags" "$to"
cd "$to"
g++ -shared -pthread -Wl,-soname,libcuda.so.1 -o libcuda.so.1 driver.o runtime.o memory.o unsupported.o -ldl
g++ -shared -Wl,-soname,libnvrtc.so.12 -o libnvrtc.so.12 nvrtc.o -ldl
g++ -shared -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml.o
g++ -shared -Wl,-soname,libcublasLt.so.12 -o libcublasLt.so.12 cublaslt.o -L. -l:libcuda.so.1
g++ -std=c++20 -O1 -Wall -Wextra -o planted "$here"/planted/planted.cpp -L. -l:libcuda.so.1 -l:libnvrtc.so.12 -Wl,-rpath,'$ORIGIN'
