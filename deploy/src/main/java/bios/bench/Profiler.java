package bios.bench;

import bios.worker.device.Device;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/// Counts the cost of each verb of a device: calls, time, and the operations and bytes computed from the
/// shapes of the operands. Verbs without a formula in [Flops] are counted too.
final class Profiler implements InvocationHandler {
    private final Device device;
    private final Runnable executed;
    private final Map<String, Entry> entries = new TreeMap<>();

    /// @param device whose verbs return after they are executed
    Profiler(Device device) {
        this(device, () -> {});
    }

    /// @param executed waits until the earlier verbs are executed
    Profiler(Device device, Runnable executed) {
        this.device = device;
        this.executed = executed;
    }

    /// The cost of a verb so far.
    static final class Entry {
        long calls;
        long nanos;
        double flops;
        double bytes;
    }

    /// A verb and its cost.
    record Line(String verb, long calls, double seconds, double flops, double bytes) {}

    /// A device for the engine whose calls are counted.
    Device proxy() {
        return (Device) Proxy.newProxyInstance(Device.class.getClassLoader(), new Class<?>[] {Device.class},
                this);
    }

    @Override public Object invoke(Object proxy, Method verb, Object[] arguments) throws Throwable {
        // verbs that a device repeats as one are called one by one here
        if (verb.getName().equals("repeat")) return InvocationHandler.invokeDefault(proxy, verb, arguments);
        long begin = System.nanoTime();
        try {
            Object result = verb.invoke(device, arguments);
            if (verb.getReturnType() == void.class) executed.run();
            return result;
        } catch (InvocationTargetException failure) {
            throw failure.getCause();
        } finally {
            count(verb.getName(), System.nanoTime() - begin, arguments);
        }
    }

    /// Synchronized, because other threads than the device thread read and write states.
    private synchronized void count(String verb, long nanos, Object[] arguments) {
        Entry entry = entries.computeIfAbsent(verb, _ -> new Entry());
        entry.calls++;
        entry.nanos += nanos;
        entry.flops += Flops.of(verb, arguments);
        entry.bytes += Operands.of(arguments).bytes();
    }

    /// Resets all counts.
    synchronized void clear() {
        entries.clear();
    }

    /// Most costly first.
    synchronized List<Line> lines() {
        return entries.entrySet().stream().map(e -> {
            Entry entry = e.getValue();
            return new Line(e.getKey(), entry.calls, entry.nanos * 1e-9, entry.flops, entry.bytes);
        }).sorted(Comparator.comparingDouble(Line::seconds).reversed()).toList();
    }
}
