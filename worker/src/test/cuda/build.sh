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
cp "$here"/shim.h "$here"/emu.h "$here"/ptx.cuh "$here"/wgmma.cuh "$to"/
flags="-std=c++20 -O2 -g1 -fPIC -shared -Wall -Wextra -march=native -ffp-contract=off -fno-strict-aliasing -fno-semantic-interposition -pthread"
g++ $flags -Wl,-soname,libcuda.so.1 -o "$to/libcuda.so.1" \
    "$here"/driver.cpp "$here"/runtime.cpp "$here"/memory.cpp "$to/unsupported.cpp" -ldl
g++ $flags -Wl,-soname,libnvrtc.so.12 -o "$to/libnvrtc.so.12" "$here"/nvrtc.cpp -ldl
g++ $flags -Wl,-soname,libcublasLt.so.12 -o "$to/libcublasLt.so.12" "$here"/cublaslt.cpp -L"$to" -l:libcuda.so.1
g++ -std=c++20 -O1 -Wall -Wextra -o "$to/planted" "$here"/planted/planted.cpp -L"$to" -l:libcuda.so.1 -l:libnvrtc.so.12 -Wl,-rpath,'$ORIGIN'
