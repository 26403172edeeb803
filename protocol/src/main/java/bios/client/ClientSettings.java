package bios.client;

import bios.protocol.client.ClientTransport;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.UUID;
import java.util.function.Consumer;

/// How a [BiosClient] reaches the service.
///
/// @param gateways addresses `HOST:PORT` of gateways, as they name themselves (`bios.gateway.actors.host`);
///     the next one is tried when one is silent
/// @param key as in the header `X-API-Key`; empty: the service needs none
/// @param program names the program in the service's log
/// @param host address of this machine by which the gateways reach it: they open a connection back to it
/// @param port on which this client listens; 0: a free port
/// @param bindHost address to listen on; empty: `host`
/// @param certificates with them, TLS in both directions
/// @param session UUID of the session of the service: a program that was killed finds its runs again if it
///     comes back with the same one
/// @param maxOperations operations and sampling requests that are not finished; further ones wait here
/// @param maxWaiting requests that wait here; further ones are refused
/// @param maxWaitingBytes bytes of the requests that wait, of the batches that are not accepted, and of an
///     answer; further ones are refused
/// @param silence after so long without a sign of the gateway the next one is tried
/// @param base settings of Pekko for the client's own actor system
/// @param waits is told why something waits; called often, and by Pekko's threads
public record ClientSettings(List<String> gateways, Optional<String> key, String program, String host,
        int port, Optional<String> bindHost, Optional<ClientTransport.Certificates> certificates,
        String session, int maxOperations, int maxWaiting, long maxWaitingBytes, Duration silence,
        Config base, Consumer<String> waits) {
    public ClientSettings {
        gateways = List.copyOf(gateways);
        if (gateways.isEmpty()) throw new IllegalArgumentException("name at least one gateway, HOST:PORT");
    }

    /// A client on the machine of these gateways, without a key.
    public static ClientSettings of(String... gateways) {
        String session = UUID.randomUUID().toString(); // edge: a session of its own
        return new ClientSettings(List.of(gateways), Optional.empty(), "bios-java", "127.0.0.1", 0,
                Optional.empty(), Optional.empty(), session, 256, 16_384, 256L << 20, Duration.ofSeconds(10),
                ConfigFactory.load(), _ -> { });
    }

    /// The same with a key.
    public ClientSettings withKey(String given) {
        return new ClientSettings(gateways, Optional.of(given), program, host, port, bindHost, certificates,
                session, maxOperations, maxWaiting, maxWaitingBytes, silence, base, waits);
    }

    /// The same with a name of the program.
    public ClientSettings withProgram(String name) {
        return new ClientSettings(gateways, key, name, host, port, bindHost, certificates, session,
                maxOperations, maxWaiting, maxWaitingBytes, silence, base, waits);
    }

    /// The same, reached by the gateways at this address and port.
    public ClientSettings reachedAt(String address, int atPort) {
        return new ClientSettings(gateways, key, program, address, atPort, bindHost, certificates, session,
                maxOperations, maxWaiting, maxWaitingBytes, silence, base, waits);
    }

    /// The same, listening on another address than it is reached at.
    public ClientSettings listeningOn(String address) {
        return new ClientSettings(gateways, key, program, host, port, Optional.of(address), certificates,
                session, maxOperations, maxWaiting, maxWaitingBytes, silence, base, waits);
    }

    /// The same over TLS.
    public ClientSettings withCertificates(ClientTransport.Certificates files) {
        return new ClientSettings(gateways, key, program, host, port, bindHost, Optional.of(files), session,
                maxOperations, maxWaiting, maxWaitingBytes, silence, base, waits);
    }

    /// The same in this session of the service.
    public ClientSettings inSession(String id) {
        return new ClientSettings(gateways, key, program, host, port, bindHost, certificates, id,
                maxOperations, maxWaiting, maxWaitingBytes, silence, base, waits);
    }

    /// The same with another bound of unfinished operations.
    public ClientSettings withMaxOperations(int most) {
        return new ClientSettings(gateways, key, program, host, port, bindHost, certificates, session, most,
                maxWaiting, maxWaitingBytes, silence, base, waits);
    }

    /// The same with other bounds of what waits in this client.
    public ClientSettings withMaxWaiting(int requests, long bytes) {
        return new ClientSettings(gateways, key, program, host, port, bindHost, certificates, session,
                maxOperations, requests, bytes, silence, base, waits);
    }

    /// The same with another time after which a gateway counts as silent.
    public ClientSettings withSilence(Duration limit) {
        return new ClientSettings(gateways, key, program, host, port, bindHost, certificates, session,
                maxOperations, maxWaiting, maxWaitingBytes, limit, base, waits);
    }

    /// The same with the settings of the caller's own actor system: its loggers and dispatchers.
    public ClientSettings over(Config settings) {
        return new ClientSettings(gateways, key, program, host, port, bindHost, certificates, session,
                maxOperations, maxWaiting, maxWaitingBytes, silence, settings, waits);
    }

    /// The same; `listener` is told why something waits.
    public ClientSettings onWait(Consumer<String> listener) {
        return new ClientSettings(gateways, key, program, host, port, bindHost, certificates, session,
                maxOperations, maxWaiting, maxWaitingBytes, silence, base, listener);
    }
}
