package bios.worker.device.cuda;

import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/// The CUlaunchConfig of a launch with CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION, in memory that
/// all launches use again.
final class EarlyLaunch {
    private static final int CONFIGURATION_BYTES = 56, ATTRIBUTE_BYTES = 72;
    private static final int PROGRAMMATIC_STREAM_SERIALIZATION = 6;
    private static final long STREAM = 32, ATTRIBUTES = 40, ATTRIBUTE_COUNT = 48, VALUE = 8;

    private final MemorySegment configuration = Arena.ofAuto().allocate(CONFIGURATION_BYTES, 8);
    private final MemorySegment attribute = Arena.ofAuto().allocate(ATTRIBUTE_BYTES, 8);

    EarlyLaunch() {
        attribute.set(JAVA_INT, 0, PROGRAMMATIC_STREAM_SERIALIZATION);
        attribute.set(JAVA_INT, VALUE, 1);
        configuration.set(JAVA_LONG, ATTRIBUTES, attribute.address());
        configuration.set(JAVA_INT, ATTRIBUTE_COUNT, 1);
    }

    /// @param stream its handle
    void set(int gridX, int gridY, int gridZ, int block, int sharedBytes, long stream) {
        int[] numbers = {gridX, gridY, gridZ, block, 1, 1, sharedBytes};
        for (int i = 0; i < numbers.length; i++) configuration.setAtIndex(JAVA_INT, i, numbers[i]);
        configuration.set(JAVA_LONG, STREAM, stream);
    }

    MemorySegment configuration() {
        return configuration;
    }
}
