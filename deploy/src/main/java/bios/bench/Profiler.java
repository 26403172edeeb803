package bios.bench;

import bios.worker.device.Device;
import bios.worker.device.Tensor;
import bios.worker.device.Weight;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/// A device that counts what each of its verbs costs: calls, time, and the operations and bytes that follow
/// from the shapes of their operands. Verbs that it does not know are counted all the same.
final class Profiler implements InvocationHandler {
    private final Device device;
    private final Map<String, Entry> entries = new TreeMap<>();

    Profiler(Device device) {
        this.device = device;
    }

    /// What a verb cost so far.
    static final class Entry {
        long calls;
        long nanos;
        double flops;
        double bytes;
    }

    /// A verb with what it cost.
    record Line(String verb, long calls, double seconds, double flops, double bytes) {}

    /// The device as the engine sees it.
    Device watched() {
        return (Device) Proxy.newProxyInstance(Device.class.getClassLoader(), new Class<?>[] {Device.class},
                this);
    }

    @Override public Object invoke(Object proxy, Method verb, Object[] arguments) throws Throwable {
        long begin = System.nanoTime();
        try {
            return verb.invoke(device, arguments);
        } catch (InvocationTargetException failure) {
            throw failure.getCause();
        } finally {
            long nanos = System.nanoTime() - begin;
            Entry entry = entries.computeIfAbsent(verb.getName(), _ -> new Entry());
            Operands operands = Operands.of(arguments);
            entry.calls++;
            entry.nanos += nanos;
            entry.flops += flops(verb.getName(), operands);
            entry.bytes += operands.bytes();
        }
    }

    /// Forgets all that was counted.
    void clear() {
        entries.clear();
    }

    /// Most costly first.
    List<Line> lines() {
        return entries.entrySet().stream().map(e -> {
            Entry entry = e.getValue();
            return new Line(e.getKey(), entry.calls, entry.nanos * 1e-9, entry.flops, entry.bytes);
        }).sorted(Comparator.comparingDouble(Line::seconds).reversed()).toList();
    }

    /// 2 · rows · in · out for each frozen matrix among the operands, rows being those of the first
    /// tensor; for products of tensors by their shapes.
    private static double flops(String verb, Operands operands) {
        List<Tensor> tensors = operands.tensors();
        if (tensors.size() < 2) return 0;
        double rows = tensors.getFirst().rows();
        if (!operands.weights().isEmpty()) {
            double flops = 0;
            for (Weight weight : operands.weights()) flops += 2 * rows * weight.in() * weight.out();
            return flops;
        }
        return switch (verb) {
            case "multiplyByTransposed", "multiplyByTransposedAdd", "multiplyBy", "multiplyByAdd" ->
                2 * rows * tensors.getFirst().columns() * tensors.get(1).columns();
            case "outerAdd" -> 2 * rows * tensors.getFirst().columns() * tensors.get(1).rows();
            case "attention" -> 2 * operands.attention();
            case "attentionBackward" -> 4 * operands.attention();
            case String _ -> 0;
        };
    }
}
