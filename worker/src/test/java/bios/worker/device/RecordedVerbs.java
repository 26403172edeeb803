package bios.worker.device;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/// Records the verbs that tests call, for [ConformanceCoverageTest].
final class RecordedVerbs {
    private static volatile Set<String> called;

    private RecordedVerbs() {}

    /// Starts to record the verbs of devices that are opened later.
    static void start() {
        called = ConcurrentHashMap.newKeySet();
    }

    /// Ends the recording; returns the verbs that were called.
    static Set<String> stop() {
        var all = Set.copyOf(called);
        called = null;
        return all;
    }

    /// A verb with the types of its operands.
    static String name(Method verb) {
        var name = new StringBuilder(verb.getName()).append('(');
        for (var type : verb.getParameterTypes())
            name.append(name.charAt(name.length() - 1) == '(' ? "" : ", ").append(type.getSimpleName());
        return name.append(')').toString();
    }

    /// The device itself, or, while verbs are recorded, one that records them.
    static Device of(Device device) {
        var record = called;
        if (record == null) return device;
        return (Device) Proxy.newProxyInstance(Device.class.getClassLoader(), new Class<?>[] {Device.class},
                (_, verb, operands) -> {
                    record.add(name(verb));
                    try {
                        return verb.invoke(device, operands);
                    } catch (InvocationTargetException failure) {
                        throw failure.getCause();
                    }
                });
    }
}
