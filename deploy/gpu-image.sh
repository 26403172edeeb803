#!/usr/bin/env bash
# Makes a folder that checks and measures a machine with a GPU and nothing else on it: a Java runtime made with jlink, the
# jars, and a launcher.
#
#     deploy/gpu-image.sh [FOLDER]      # default: deploy/target/gpu-image
#     FOLDER/gpu-check --json gpu.json  # on the machine with the GPU
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
to=${1:-$root/deploy/target/gpu-image}
"$root/bios" gpu-check --help >/dev/null    # builds what is missing, and finds a JDK
for home in "${BIOS_JAVA_HOME:-}" "${JAVA_HOME:-}" /usr/lib/jvm/*25*; do
    if [ -x "$home/bin/jlink" ] && "$home/bin/java" -version 2>&1 | grep -q 'version "25'; then jdk=$home; break; fi
done
[ -n "${jdk:-}" ] || { echo "gpu-image: no JDK 25 with jlink found; set BIOS_JAVA_HOME to one" >&2; exit 1; }
rm -rf "$to"
mkdir -p "$to"
"$jdk/bin/jlink" --strip-debug --no-header-files --no-man-pages --output "$to/java" --add-modules \
    java.base,java.desktop,java.logging,java.management,java.naming,java.net.http,java.sql,java.xml,jdk.management,jdk.unsupported
mkdir -p "$to/deploy/target"
cp -r "$root/deploy/target/lib" "$root/deploy/target/bios.jar" "$to/deploy/target"
cp -r "$root/deploy/bench" "$to/deploy"
cat >"$to/gpu-check" <<'LAUNCHER'
#!/usr/bin/env bash
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
export OMP_NUM_THREADS=1 BIOS_ROOT=$root
read -r -a options <<<"${BIOS_JAVA_OPTIONS:-}"
exec "$root/java/bin/java" --enable-native-access=ALL-UNNAMED --sun-misc-unsafe-memory-access=allow "${options[@]}" \
    -cp "$root/deploy/target/bios.jar:$root/deploy/target/lib/*" bios.Main gpu-check "$@"
LAUNCHER
chmod +x "$to/gpu-check"
du -sh "$to"
