package bios.node;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import org.junit.jupiter.api.Test;

/// Which addresses only this machine reaches: without keys a service listens on no others.
class LoopbackTest {
    @Test void onlyAddressesOfThisMachineAreLoopback() {
        for (String host : List.of("127.0.0.1", "127.0.0.11", "localhost", "::1"))
            assertEquals(true, Loopback.is(host), host);
        for (String host : List.of("0.0.0.0", "::", "192.0.2.7", "2001:db8::1", "no-such-host.invalid"))
            assertEquals(false, Loopback.is(host), host);
    }
}
