package bios.node;

import java.net.InetAddress;
import java.net.UnknownHostException;

/// Addresses that only this machine reaches.
final class Loopback {
    private Loopback() {}

    /// Whether a host name or address is such an address.
    static boolean is(String host) {
        try {
            for (InetAddress address : InetAddress.getAllByName(host))
                if (!address.isLoopbackAddress()) return false;
            return true;
        } catch (UnknownHostException _) {
            return false; // the server says later that it cannot listen there
        }
    }
}
