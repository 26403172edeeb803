package bios.cluster;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.ProcessBuilder.Redirect;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/// The processes of Bios that this one starts: with the same Java, options and jars.
final class Child {
    private static final List<String> SESSION = session();

    private Child() {}

    /// Starts `bios` with `arguments`; what it says is added to `log`.
    ///
    /// @param environment beside that of this process
    /// @param java options of Java beside those of this process
    static Process start(List<String> arguments, Path log, Map<String, String> environment,
            List<String> java) {
        List<String> command = new ArrayList<>(SESSION);
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(java);
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), "bios.Main"));
        command.addAll(arguments);
        try {
            var builder = new ProcessBuilder(command);
            builder.environment().putAll(environment);
            return builder.redirectInput(Redirect.from(new File("/dev/null")))
                    .redirectErrorStream(true).redirectOutput(Redirect.appendTo(log.toFile())).start();
        } catch (IOException failed) {
            throw new UncheckedIOException("a process of Bios cannot be started: " + failed.getMessage(),
                    failed);
        }
    }

    /// A process in a session of its own does not end by the terminal's Ctrl-C, but in its turn.
    private static List<String> session() {
        for (String folder : System.getenv().getOrDefault("PATH", "").split(":")) {
            Path setsid = Path.of(folder).resolve("setsid");
            if (!folder.isEmpty() && Files.isExecutable(setsid)) return List.of(setsid.toString());
        }
        return List.of();
    }
}
