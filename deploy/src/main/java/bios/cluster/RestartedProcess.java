package bios.cluster;

import bios.persistence.process.ProcessEnd;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.ProcessBuilder.Redirect;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/// A child process of Bios that is started again whenever it ends because its device is lost: a lost card is
/// of no use to the process that used it, and often works again for the next one. The child writes where this
/// process writes, and ends with it, however it ends.
public final class RestartedProcess {
    /// The system property of the child.
    static final String CHILD = "bios.child";
    private static final long STOP_SECONDS = 90;

    private final List<String> arguments;
    private final Consumer<String> say;
    private volatile Process process;
    private volatile boolean stopping;

    /// @param arguments of `bios`
    /// @param say receives progress messages
    public RestartedProcess(List<String> arguments, Consumer<String> say) {
        this.arguments = List.copyOf(arguments);
        this.say = say;
    }

    /// Whether this process is such a child. Then it ends when its parent does.
    public static boolean isChild() {
        return Boolean.getBoolean(CHILD);
    }

    /// Ends this process, a child, when its parent has ended: the pipe between them is closed then.
    ///
    /// @param atOnce whether it needs its parent for an orderly end
    public static void endWithParent(boolean atOnce) {
        Thread.ofPlatform().daemon().name("parent").start(() -> {
            try {
                while (System.in.read() >= 0) { }
            } catch (IOException _) {
                // as its end
            }
            if (atOnce) Runtime.getRuntime().halt(1);
            System.exit(1);
        });
    }

    /// Runs the child until it ends for another reason than a lost device.
    ///
    /// @return its exit status
    public int run() throws InterruptedException {
        Runtime.getRuntime().addShutdownHook(Thread.ofPlatform().unstarted(this::stop));
        Backoff backoff = Backoff.FIRST;
        while (true) {
            long began = ProcessSupervisor.nowMillis();
            process = start();
            if (stopping) process.destroy();
            int status = process.waitFor(); // edge: supervises a process
            if (status != ProcessEnd.DEVICE_LOST_STATUS || stopping) return status;
            backoff = backoff.afterRunning(ProcessSupervisor.nowMillis() - began);
            say.accept("the process of the device ended with status " + status + "; it is started again");
            Thread.sleep(backoff.millis()); // edge: supervises a process
            backoff = backoff.grown();
        }
    }

    private Process start() {
        try {
            return new ProcessBuilder(ChildProcess.command(arguments, List.of("-D" + CHILD + "=true")))
                    .redirectOutput(Redirect.INHERIT).redirectError(Redirect.INHERIT).start();
        } catch (IOException failed) {
            throw new UncheckedIOException("a process of Bios cannot be started: " + failed.getMessage(),
                    failed);
        }
    }

    private void stop() {
        stopping = true;
        Process running = process;
        if (running == null) return;
        running.destroy();
        try {
            if (!running.waitFor(STOP_SECONDS, TimeUnit.SECONDS)) running.destroyForcibly();
        } catch (InterruptedException _) {
            running.destroyForcibly();
        }
    }
}
