package bios.persistence.cassandra;

import bios.persistence.process.TiedProcesses;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.stream.Stream;

/// Finds what a [LocalCassandra] runs on: Cassandra's jars and a JDK that it supports.
public final class CassandraJars {
    /// JDK versions that Cassandra 5.0 runs on; the JDK of Bios is not one of them.
    private static final Set<String> SUPPORTED = Set.of("11", "17");
    private static final int LOG_CHARACTERS_SHOWN = 2000;

    private CassandraJars() {}

    /// The folder of the jars in the installation `root`; downloads them with Maven if they are missing,
    /// while other processes that need them wait. [IllegalStateException] with the end of Maven's output if
    /// that fails.
    public static Path in(Path root) {
        Path project = root.resolve("deploy/cassandra");
        Path jars = project.resolve("target/lib");
        Path lock = project.resolve("target/fetch.lock");
        if (complete(jars) && !Files.exists(lock)) return jars; // also of a read-only folder
        try {
            Files.createDirectories(lock.getParent());
            try (var channel = FileChannel.open(lock, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
                    var _ = channel.lock()) { // edge: a command line waits
                if (!complete(jars) || channel.size() > 0) { // or a download was cut off
                    channel.write(ByteBuffer.wrap(new byte[1]));
                    fetch(root, project, jars);
                    channel.truncate(0);
                }
                Files.deleteIfExists(lock);
                return jars;
            }
        } catch (IOException failed) {
            throw new UncheckedIOException("Cassandra's jars cannot be downloaded to " + jars + ": "
                    + failed.getMessage(), failed);
        }
    }

    private static void fetch(Path root, Path project, Path jars) throws IOException {
        Path log = project.resolve("target/fetch.log");
        try {
            Process maven = TiedProcesses.start(new ProcessBuilder(root.resolve("mvnw").toString(), "-B",
                    "-ntp", "-q", "-f", project.resolve("pom.xml").toString(), "package")
                    .redirectErrorStream(true).redirectOutput(log.toFile()));
            if (maven.waitFor() == 0 && complete(jars)) return; // edge: a command line waits
            String output = Files.readString(log);
            throw new IllegalStateException("Cassandra's jars could not be downloaded by ./mvnw -f "
                    + "deploy/cassandra/pom.xml package:\n"
                    + output.substring(Math.max(0, output.length() - LOG_CHARACTERS_SHOWN)).strip());
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while Cassandra's jars were downloaded");
        }
    }

    private static boolean complete(Path jars) {
        if (!Files.isDirectory(jars)) return false;
        try (Stream<Path> all = Files.list(jars)) {
            return all.anyMatch(f -> f.getFileName().toString().startsWith("jamm-"));
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }

    /// The `java` of a JDK 17 or 11, if there is one: of `JAVA17_HOME`, `JAVA11_HOME`, `JAVA_HOME`,
    /// `/usr/lib/jvm`, or the PATH.
    public static Optional<Path> findJava() {
        return java(System.getenv());
    }

    static Path java() {
        return findJava().orElseThrow(() -> new IllegalStateException("Cassandra needs a JDK 17 (or"
                + " 11) beside that of Bios: install one, e.g. package openjdk-17-jre-headless, or set"
                + " JAVA17_HOME to its folder"));
    }

    private static Optional<Path> java(Map<String, String> environment) {
        var homes = new ArrayList<Path>();
        for (String name : List.of("JAVA17_HOME", "JAVA11_HOME", "JAVA_HOME"))
            if (!environment.getOrDefault(name, "").isEmpty()) homes.add(Path.of(environment.get(name)));
        for (String folder : List.of("/usr/lib/jvm", "/opt", environment.getOrDefault("HOME", "/") + "/.jdks",
                environment.getOrDefault("HOME", "/") + "/.sdkman/candidates/java"))
            homes.addAll(folders(Path.of(folder)));
        for (String entry : environment.getOrDefault("PATH", "").split(":")) {
            Path java = Path.of(entry).resolve("java");
            if (!entry.isEmpty() && Files.isExecutable(java)) homes.add(real(java).getParent().getParent());
        }
        // 17 before 11 in each folder; the file `release` of a JDK has its version.
        return homes.stream().filter(home -> version(home).filter(SUPPORTED::contains).isPresent())
                .map(home -> home.resolve("bin/java")).filter(Files::isExecutable).findFirst();
    }

    private static List<Path> folders(Path parent) {
        if (!Files.isDirectory(parent)) return List.of();
        try (Stream<Path> all = Files.list(parent)) {
            return all.sorted((a, b) -> b.compareTo(a)).toList();
        } catch (IOException _) {
            return List.of();
        }
    }

    private static Path real(Path file) {
        try {
            return file.toRealPath();
        } catch (IOException _) {
            return file;
        }
    }

    /// The major version in the file `release`, if there is one.
    private static Optional<String> version(Path home) {
        Path release = home.resolve("release");
        if (!Files.isRegularFile(release)) return Optional.empty();
        var properties = new Properties();
        try (InputStream in = Files.newInputStream(release)) {
            properties.load(in);
        } catch (IOException _) {
            return Optional.empty();
        }
        return Optional.ofNullable(properties.getProperty("JAVA_VERSION"))
                .map(text -> text.replace("\"", "").split("[.+-]")[0]);
    }
}
