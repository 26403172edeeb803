package bios.worker.device;

import org.junit.jupiter.params.BeforeParameterizedClassInvocation;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.MethodSource;

/// The conformance suite: the results that every backend must give for every verb of [Device]. Its classes
/// extend this class and run once for each of [Backend#all].
@ParameterizedClass(name = "{0}") @MethodSource("bios.worker.device.Backend#all")
abstract class Conformance {
    private static Backend current;

    /// Makes JUnit pass the backend; fields of tests are initialized before it is set, and call [#open].
    @Parameter private Backend backend;

    @BeforeParameterizedClassInvocation static void use(Backend backend) {
        current = backend;
    }

    /// A device of the backend under test.
    static Device open(int threads) {
        return current.open(threads, Long.MAX_VALUE);
    }

    /// The same with this many bytes of memory.
    static Device open(int threads, long memoryBytes) {
        return current.open(threads, memoryBytes);
    }

    /// The tolerance of the backend under test.
    static Tolerance tolerance() {
        return current.tolerance();
    }
}
