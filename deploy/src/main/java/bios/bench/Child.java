package bios.bench;

import bios.CommandFailed;
import bios.Main;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/// A process that this one started; ended by its handle when closed.
final class Child implements AutoCloseable {
    private static final int PATIENCE_SECONDS = 20;

    private final List<String> command;
    private final Process process;
    private final BufferedReader lines;

    private Child(List<String> command, Process process) {
        this.command = command;
        this.process = process;
        this.lines = new BufferedReader(
                new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
    }

    /// Starts a command; what it says to its standard error is for the person at the terminal.
    static Child of(List<String> command) {
        ProcessBuilder builder = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT);
        // the launcher's setting is for our engine; others use all cores
        if (!command.contains(Main.class.getName())) builder.environment().remove("OMP_NUM_THREADS");
        try {
            return new Child(command, builder.start());
        } catch (IOException failure) {
            throw new CommandFailed(command.getFirst() + " could not be started: " + failure.getMessage());
        }
    }

    /// Starts this program once more, with these arguments.
    static Child bios(List<String> arguments) {
        return java(Main.class, arguments);
    }

    /// Starts a Java program as this one was started.
    static Child java(Class<?> main, List<String> arguments) {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(ManagementFactory.getRuntimeMXBean().getInputArguments());
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), main.getName()));
        command.addAll(arguments);
        return of(command);
    }

    /// All that it writes until it ends; it must end well.
    String output() {
        try (this) {
            String text = String.join("\n", lines.readAllLines());
            int status = process.waitFor();
            if (status != 0)
                throw new CommandFailed("exit status " + status + " of: " + String.join(" ", command));
            return text;
        } catch (IOException failure) {
            throw new CommandFailed(failure.getMessage() + ", of: " + String.join(" ", command));
        } catch (InterruptedException _) {
            throw new CommandFailed("interrupted");
        }
    }

    /// What follows `prefix` on the first line that begins so.
    String await(String prefix) {
        try {
            for (String line; (line = lines.readLine()) != null; )
                if (line.startsWith(prefix)) return line.substring(prefix.length());
            throw new CommandFailed("ended too early: " + String.join(" ", command));
        } catch (IOException failure) {
            throw new CommandFailed(failure.getMessage() + ", of: " + String.join(" ", command));
        }
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
