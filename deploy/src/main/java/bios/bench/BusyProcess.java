package bios.bench;

import java.io.IOException;
import java.util.List;

/// A process that keeps one core busy while something else is measured.
public final class BusyProcess implements AutoCloseable {
    private static volatile long iterations;

    private final Child child;

    private BusyProcess(Child child) {
        this.child = child;
    }

    /// Starts the process; it ends at [#close], or when this process ends.
    static BusyProcess start() {
        Child child = Child.java(BusyProcess.class, List.of());
        child.await("busy");
        return new BusyProcess(child);
    }

    /// Spins until its standard input ends.
    public static void main(String[] arguments) throws IOException {
        Thread spinning = new Thread(() -> {
            while (true) iterations++;
        });
        spinning.setDaemon(true);
        spinning.start();
        System.out.println("busy");
        System.out.flush();
        while (System.in.read() >= 0) {
            // runs until the parent closes the pipe or ends
        }
    }

    @Override public void close() {
        child.close();
    }
}
