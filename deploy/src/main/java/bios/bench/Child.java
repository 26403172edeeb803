package bios.bench;

import bios.CommandFailed;
import bios.Main;
import bios.persistence.process.TiedProcesses;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/// A child process; [#close] ends it by its handle.
final class Child implements AutoCloseable {
    private static final int STOP_SECONDS = 20;
    private static final int MOST_ERROR_CHARACTERS = 2000;

    private final List<String> command;
    private final Process process;
    private final BufferedReader lines;
    private final Path errors;

    private Child(List<String> command, Process process, Path errors) {
        this.command = command;
        this.process = process;
        this.errors = errors;
        this.lines = new BufferedReader(
                new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
    }

    /// Starts a command; if it fails, the end of its standard error is part of the message.
    static Child of(List<String> command) {
        ProcessBuilder builder = new ProcessBuilder(command);
        // the launcher sets it for Bios's engine; other programs use all cores
        if (!command.contains(Main.class.getName())) builder.environment().remove("OMP_NUM_THREADS");
        try {
            Path errors = Files.createTempFile("bios-bench-", ".log");
            errors.toFile().deleteOnExit();
            return new Child(command, TiedProcesses.start(builder.redirectError(errors.toFile())), errors);
        } catch (IOException failure) {
            throw new CommandFailed(command.getFirst() + " could not be started: " + failure.getMessage());
        }
    }

    /// Starts this program in a new process, with these arguments.
    static Child bios(List<String> arguments) {
        return java(Main.class, arguments);
    }

    /// The same with additional JVM options, which override those of this program.
    static Child bios(List<String> options, List<String> arguments) {
        return java(Main.class, options, arguments);
    }

    /// Its process id.
    long pid() {
        return process.pid();
    }

    /// Starts a Java program with this process's JVM, options and class path.
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

    /// Waits for exit status 0 and returns its standard output.
    ///
    /// @throws LeftOut if it runs longer than the limit; then it and its child processes have been ended
    String output(String what, TimeLimit limit) {
        AtomicBoolean exceeded = new AtomicBoolean();
        try (this) {
            return limit.guard(what, _ -> {
                exceeded.set(true);
                kill();
            }, this::output);
        } catch (CommandFailed failure) {
            if (exceeded.get()) throw new LeftOut(limit.reason(what));
            throw failure;
        }
    }

    private String output() {
        try {
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

    /// Ends it and its child processes, each by its own handle.
    private void kill() {
        List<ProcessHandle> started = process.descendants().toList();
        process.destroyForcibly();
        started.forEach(ProcessHandle::destroyForcibly);
    }

    /// The rest of the first line of output that begins with `prefix`.
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
            String all = Files.readString(errors);
            last = all.substring(Math.max(0, all.length() - MOST_ERROR_CHARACTERS));
        } catch (IOException failure) {
            last = failure.getMessage();
        }
        return new CommandFailed(how + ": " + String.join(" ", command) + "\n" + last.strip());
    }

    /// Asks it to end and waits until it has; what it still writes is dropped.
    ///
    /// @throws CommandFailed if it has not ended after `limit`; it is ended by force then
    void end(Duration limit) {
        process.destroy();
        Thread.ofVirtual().start(this::drain);
        try {
            if (process.waitFor(limit)) return;
            kill();
            throw failed("has not ended in " + limit.toSeconds() + " s");
        } catch (InterruptedException _) {
            throw new CommandFailed("interrupted");
        }
    }

    private void drain() {
        try {
            while (lines.readLine() != null) continue;
        } catch (IOException _) {
            // closed, as it has ended
        }
    }

    @Override public void close() {
        process.destroy();
        try {
            if (!process.waitFor(STOP_SECONDS, TimeUnit.SECONDS)) process.destroyForcibly();
        } catch (InterruptedException _) {
            process.destroyForcibly();
        }
    }
}
