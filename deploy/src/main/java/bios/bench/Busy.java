package bios.bench;

import java.io.IOException;
import java.util.List;

/// A process that keeps one core busy: company for what is measured.
public final class Busy implements AutoCloseable {
    private static volatile long turns;

    private final Child child;

    private Busy(Child child) {
        this.child = child;
    }

    /// Starts one; it ends with [#close], or when this process ends.
    static Busy start() {
        Child child = Child.java(Busy.class, List.of());
        child.await("busy");
        return new Busy(child);
    }

    /// Spins until its standard input ends.
    public static void main(String[] arguments) throws IOException {
        Thread spinning = new Thread(() -> {
            while (true) turns++;
        });
        spinning.setDaemon(true);
        spinning.start();
        System.out.println("busy");
        System.out.flush();
        while (System.in.read() >= 0) {
            // until the parent closes it or ends
        }
    }

    @Override public void close() {
        child.close();
    }
}
