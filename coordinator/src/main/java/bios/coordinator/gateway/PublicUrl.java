package bios.coordinator.gateway;

import java.net.InetAddress;
import java.net.NetworkInterface;
import java.net.SocketException;
import java.net.URI;
import java.net.URISyntaxException;
import java.net.UnknownHostException;
import java.util.Optional;
import java.util.function.IntSupplier;

/// The root of URLs that responses contain. A `Host` header is what the sender says, so only one that names
/// this process or the sender's own machine is used; without a usable one, URLs are relative.
///
/// @param configured `bios.gateway.public-url`
/// @param boundHost the address that the server listens on
/// @param boundPort its port
/// @param scheme of the server
record PublicUrl(Optional<String> configured, String boundHost, IntSupplier boundPort, String scheme) {
    PublicUrl(Optional<String> configured, String boundHost, IntSupplier boundPort) {
        this(configured, boundHost, boundPort, "http");
    }

    /// Scheme, host and port without a slash at the end; empty for relative URLs.
    String root(String hostHeader) {
        return configured.map(url -> url.replaceAll("/+$", ""))
                .orElseGet(() -> isOwn(hostHeader) ? scheme + "://" + hostHeader : "");
    }

    private boolean isOwn(String hostHeader) {
        try {
            URI uri = URI.create("http://" + hostHeader).parseServerAuthority();
            String host = uri.getHost();
            if (host == null || !hostHeader.equals(uri.getAuthority()) || uri.getUserInfo() != null)
                return false;
            if (host.equalsIgnoreCase("localhost")) return true;
            int port = uri.getPort() < 0 ? 80 : uri.getPort();
            if (port == boundPort.getAsInt() && host.equalsIgnoreCase(boundHost)) return true;
            if (!isLiteral(host)) return false;
            InetAddress address = InetAddress.getByName(host);
            return address.isLoopbackAddress() || port == boundPort.getAsInt() && listensOnAll()
                    && NetworkInterface.getByInetAddress(address) != null;
        } catch (URISyntaxException | IllegalArgumentException | UnknownHostException | SocketException _) {
            return false;
        }
    }

    private boolean listensOnAll() throws UnknownHostException {
        return isLiteral(boundHost) && InetAddress.getByName(boundHost).isAnyLocalAddress();
    }

    /// Whether it is an address and no name: nothing is resolved.
    private static boolean isLiteral(String host) {
        return host.indexOf(':') >= 0 || host.matches("[0-9]{1,3}(\\.[0-9]{1,3}){3}");
    }
}
