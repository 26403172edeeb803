package bios.worker.model;

import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.HeadInputs;
import bios.worker.device.KeyValues;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.PagePool;
import bios.worker.device.Readback;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/// A device that records the calls of another one, its page pools and its readbacks, and refuses an
/// allocation if a test requests that.
public final class RecordingDevice {
    private static final Set<String> ALLOCATIONS = Set.of("tensor", "scratch", "upload", "slots", "sequences",
            "draws", "pagePool", "growTo");

    private final Device real;
    private final Device recording;
    private final Map<Object, Object> realOf = new IdentityHashMap<>();
    private final List<String> calls = new ArrayList<>();
    private int untilRefusal = Integer.MAX_VALUE;
    private int mostPages = Integer.MAX_VALUE;
    private boolean losesReadback;
    private int tensors;

    public RecordingDevice(Device real) {
        this.real = real;
        this.recording = proxy(Device.class, real);
    }

    /// The device for the code under test.
    public Device device() {
        return recording;
    }

    /// Refuses one allocation, after `allocations` successful ones.
    public void refuseAfter(int allocations) {
        untilRefusal = allocations;
    }

    /// Refuses to reserve more than this many pages.
    public void refusePagesBeyond(int pages) {
        mostPages = pages;
    }

    /// Resets all refusals.
    public void refuseNothing() {
        untilRefusal = Integer.MAX_VALUE;
    }

    /// Loses the results of the next readback.
    public void loseReadback() {
        losesReadback = true;
    }

    /// The tensors that are not freed yet.
    public int tensors() {
        return tensors;
    }

    /// Names of the methods called since the last call of this method.
    public List<String> calls() {
        List<String> all = List.copyOf(calls);
        calls.clear();
        return all;
    }

    private <T> T proxy(Class<T> type, Object target) {
        T proxy = type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type},
                (_, method, arguments) -> call(target, method, arguments)));
        realOf.put(proxy, target);
        return proxy;
    }

    private Object call(Object target, Method method, Object[] arguments) throws Throwable {
        String name = method.getName();
        calls.add(name);
        if (ALLOCATIONS.contains(name) && untilRefusal != Integer.MAX_VALUE && untilRefusal-- == 0) {
            untilRefusal = Integer.MAX_VALUE;
            throw new OutOfDeviceMemory(1, real.memoryInUse(), real.memoryInUse());
        }
        if (name.equals("growTo") && (int) arguments[0] > mostPages)
            throw new OutOfDeviceMemory(1, real.memoryInUse(), real.memoryInUse());
        if (losesReadback && target instanceof Readback) {
            losesReadback = false;
            throw new DeviceLost("requested by the test");
        }
        Object[] plain = arguments == null ? null : arguments.clone();
        for (int i = 0; plain != null && i < plain.length; i++) plain[i] = realOf(plain[i]);
        try {
            Object result = method.invoke(target, plain);
            if (name.equals("tensor")) tensors++;
            if (name.equals("free")) tensors--;
            return switch (result) {
                case PagePool pool -> proxy(PagePool.class, pool);
                case Readback readback -> proxy(Readback.class, readback);
                case null, default -> result;
            };
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
    }

    private Object realOf(Object argument) {
        return switch (argument) {
            case KeyValues.Paged(var pool, int layer) -> new KeyValues.Paged(real(pool), layer);
            case HeadInputs(var queries, var keys, int headDim, var rotation, var pages) ->
                new HeadInputs(queries, keys, headDim, rotation, pages.map(to -> new HeadInputs.Pages(
                        real(to.pool()), to.layer(), to.values(), to.sequences())));
            case null, default -> realOf.getOrDefault(argument, argument);
        };
    }

    private PagePool real(PagePool pool) {
        return (PagePool) realOf.getOrDefault(pool, pool);
    }
}
