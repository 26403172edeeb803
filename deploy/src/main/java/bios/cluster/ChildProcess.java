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

/// Starts child processes of Bios with the Java, the options and the jars of this process.
final class ChildProcess {
    private static final List<String> SESSION = session();

    private ChildProcess() {}

    /// Starts `bios` with `arguments`; its output is appended to `log`.
    ///
    /// @param environment additional variables of the environment
    /// @param java additional options of Java
    /// @param tied whether it ends when this process does
    static Process start(List<String> arguments, Path log, Map<String, String> environment,
            List<String> java, boolean tied) {
        List<String> command = new ArrayList<>(SESSION);
        command.addAll(command(arguments, java));
        try {
            var builder = new ProcessBuilder(command);
            builder.environment().putAll(environment);
            return builder.redirectInput(tied ? Redirect.PIPE : Redirect.from(new File("/dev/null")))
                    .redirectErrorStream(true).redirectOutput(Redirect.appendTo(log.toFile())).start();
        } catch (IOException failed) {
            throw new UncheckedIOException("a process of Bios cannot be started: " + failed.getMessage(),
                    failed);
        }
    }

    /// The command of `bios` with `arguments`.
    ///
    /// @param java additional options of Java
    static List<String> command(List<String> arguments, List<String> java) {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(java);
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), "bios.Main"));
        command.addAll(arguments);
        return command;
    }

    /// `setsid`, if available: a process in its own session is not ended by Ctrl-C in the terminal.
    private static List<String> session() {
        for (String folder : System.getenv().getOrDefault("PATH", "").split(":")) {
            Path setsid = Path.of(folder).resolve("setsid");
            if (!folder.isEmpty() && Files.isExecutable(setsid)) return List.of(setsid.toString());
        }
        return List.of();
    }
}
