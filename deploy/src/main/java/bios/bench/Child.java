package bios.bench;

import bios.CommandFailed;
import bios.Main;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/// A process that this one started; ended by its handle when closed.
final class Child implements AutoCloseable {
    private static final int PATIENCE_SECONDS = 20;
    private static final int MOST_COMPLAINTS = 2000;

    private final List<String> command;
    private final Process process;
    private final BufferedReader lines;

    private final Path complaints;

    private Child(List<String> command, Process process, Path complaints) {
        this.command = command;
        this.process = process;
        this.complaints = complaints;
        Runtime.getRuntime().addShutdownHook(new Thread(process::destroy));
        this.lines = new BufferedReader(
                new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
    }

    /// Starts a command; what it says to its standard error is told when it fails.
    static Child of(List<String> command) {
        ProcessBuilder builder = new ProcessBuilder(command);
        // the launcher's setting is for our engine; others use all cores
        if (!command.contains(Main.class.getName())) builder.environment().remove("OMP_NUM_THREADS");
        try {
            Path complaints = Files.createTempFile("bios-bench-", ".log");
            complaints.toFile().deleteOnExit();
            return new Child(command, builder.redirectError(complaints.toFile()).start(), complaints);
        } catch (IOException failure) {
            throw new CommandFailed(command.getFirst() + " could not be started: " + failure.getMessage());
        }
    }

    /// Starts this program once more, with these arguments.
    static Child bios(List<String> arguments) {
        return java(Main.class, arguments);
    }

    /// The same with more options of Java, which outdo those of this program.
    static Child bios(List<String> options, List<String> arguments) {
        return java(Main.class, options, arguments);
    }

    /// Its process id.
    long pid() {
        return process.pid();
    }

    /// Starts a Java program as this one was started.
    static Child java(Class<?> main, List<String> arguments) {
        return java(main, List.of(), arguments);
    }

    private static Child java(Class<?> main, List<String> options, List<String> arguments) {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        command.addAll(options);
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), main.getName()));
        command.addAll(arguments);
        return of(command);
    }

    /// All that it writes until it ends; it must end well.
    String output() {
        try (this) {
            String text = String.join("\n", lines.readAllLines());
            int status = process.waitFor();
            if (status != 0) throw failed("exit status " + status);
            return text;
        } catch (IOException failure) {
            throw failed(failure.getMessage());
        } catch (InterruptedException _) {
            throw new CommandFailed("interrupted");
        }
    }

    /// What follows `prefix` on the first line that begins so.
    String await(String prefix) {
        try {
            for (String line; (line = lines.readLine()) != null; )
                if (line.startsWith(prefix)) return line.substring(prefix.length());
            throw failed("ended too early");
        } catch (IOException failure) {
            throw failed(failure.getMessage());
        }
    }

    private CommandFailed failed(String how) {
        String last;
        try {
            String all = Files.readString(complaints);
            last = all.substring(Math.max(0, all.length() - MOST_COMPLAINTS));
        } catch (IOException failure) {
            last = failure.getMessage();
        }
        return new CommandFailed(how + ": " + String.join(" ", command) + "\n" + last.strip());
    }

    @Override public void close() {
        process.destroy();
        try {
            if (!process.waitFor(PATIENCE_SECONDS, TimeUnit.SECONDS)) process.destroyForcibly();
        } catch (InterruptedException _) {
            process.destroyForcibly();
        }
    }
}
