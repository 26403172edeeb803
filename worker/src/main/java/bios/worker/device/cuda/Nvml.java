package bios.worker.device.cuda;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import bios.worker.device.CardState;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.List;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The driver's library of monitoring, which comes with the driver: what a card does at the moment. Any
/// thread may ask; nothing waits for the card.
final class Nvml {
    private static final Logger log = LoggerFactory.getLogger(Nvml.class);
    private static final List<String> NAMES = List.of("libnvidia-ml.so.1");
    private static final int MULTIPROCESSOR_CLOCK = 1, SENSOR_OF_THE_CHIP = 0;
    private static final double MEGA = 1e6, MILLI = 1e-3, PER_CENT = 0.01;

    private final CudaCard card;
    private final MemorySegment handle;
    private final MethodHandle memory;
    private final MethodHandle utilization;
    private final MethodHandle clock;
    private final MethodHandle temperature;
    private final MethodHandle power;

    private Nvml(NativeLibrary library, CudaCard card) {
        this.card = card;
        check("nvmlInit_v2", NativeLibrary.call(library.function("nvmlInit_v2")));
        try (var arena = Arena.ofConfined()) {
            var to = arena.allocate(ADDRESS);
            check("nvmlDeviceGetHandleByUUID", NativeLibrary.call(library.function(
                    "nvmlDeviceGetHandleByUUID", ADDRESS, ADDRESS), arena.allocateFrom(card.uuid()), to));
            handle = to.get(ADDRESS, 0);
        }
        memory = library.function("nvmlDeviceGetMemoryInfo", ADDRESS, ADDRESS);
        utilization = library.function("nvmlDeviceGetUtilizationRates", ADDRESS, ADDRESS);
        clock = library.function("nvmlDeviceGetClockInfo", ADDRESS, JAVA_INT, ADDRESS);
        temperature = library.function("nvmlDeviceGetTemperature", ADDRESS, JAVA_INT, ADDRESS);
        power = library.function("nvmlDeviceGetPowerUsage", ADDRESS, ADDRESS);
    }

    /// The monitor of a card; empty without the library, or if it does not know the card.
    static Optional<Nvml> of(CudaCard card) {
        try {
            return Optional.of(new Nvml(NativeLibrary.of(NAMES, List.of(), List.of(), "the NVIDIA driver"),
                    card));
        } catch (IllegalStateException problem) {
            log.info("no metrics of the card: {}", problem.getMessage());
            return Optional.empty();
        }
    }

    private static void check(String call, Object status) {
        if ((int) status != 0) throw new IllegalStateException(call + ": status " + status);
    }

    /// What the card does now.
    CardState state() {
        try (var arena = Arena.ofConfined()) {
            var room = arena.allocate(JAVA_LONG, 3);
            // total, free and used bytes
            double used = good(NativeLibrary.call(memory, handle, room)) ? room.getAtIndex(JAVA_LONG, 2)
                    : Double.NaN;
            return new CardState(card.uuid(), used,
                    PER_CENT * number(NativeLibrary.call(utilization, handle, room), room),
                    MEGA * number(NativeLibrary.call(clock, handle, MULTIPROCESSOR_CLOCK, room), room),
                    number(NativeLibrary.call(temperature, handle, SENSOR_OF_THE_CHIP, room), room),
                    MILLI * number(NativeLibrary.call(power, handle, room), room));
        }
    }

    private static boolean good(Object status) {
        return (int) status == 0;
    }

    private static double number(Object status, MemorySegment room) {
        return good(status) ? Integer.toUnsignedLong(room.get(JAVA_INT, 0)) : Double.NaN;
    }
}
