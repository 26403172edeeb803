package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import bios.protocol.client.ClientMessage;
import bios.protocol.client.ClientTransport;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.apache.pekko.Done;
import org.apache.pekko.actor.CoordinatedShutdown;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.actor.typed.Behavior;
import org.apache.pekko.actor.typed.SupervisorStrategy;
import org.apache.pekko.actor.typed.Terminated;
import org.apache.pekko.actor.typed.javadsl.ActorContext;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.actor.typed.javadsl.Behaviors;
import org.apache.pekko.remote.RemoteActorRefProvider;
import org.apache.pekko.remote.artery.ArteryTransport;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// The server of the actor protocol, for JVM programs: a second actor system on a port of its own, whose only
/// actors are the gateway and its sessions and whose only messages are [ClientMessage]s. Clients are no
/// members of the cluster, and nothing else can be reached through this port.
///
/// @param calls carries out requests
/// @param memory of all requests of this node
/// @param limits of requests, the same as over HTTP
/// @param names random names of sessions
/// @param nanos monotonic clock
record ActorGateway(Settings settings, ActorCalls calls, RequestMemory memory, GatewaySettings limits,
        Supplier<String> names, LongSupplier nanos) {
    private static final Logger LOG = LoggerFactory.getLogger(ActorGateway.class);

    /// Block `bios.gateway.actors` of the configuration.
    ///
    /// @param host address that clients name
    /// @param maxSessions clients at the same time
    /// @param maxRequests requests of a client in progress
    /// @param unreadBytes most bytes that are sent to a client and that it is not known to have read
    /// @param connections bounds of TCP connections
    /// @param silence a client that is not heard for so long has gone
    public record Settings(boolean enabled, String host, int port, Optional<String> bindHost,
            Optional<ClientTransport.Certificates> certificates, int maxSessions, int maxRequests,
            long unreadBytes, Duration silence, String logLevel, BoundedAcceptor.Limits connections) {
        static Settings of(Config block) {
            return new Settings(block.getBoolean("enabled"), block.getString("host"), block.getInt("port"),
                    text(block, "bind-host"), certificates(block), block.getInt("max-sessions"),
                    block.getInt("max-requests"), block.getBytes("unread-bytes"),
                    block.getDuration("silence"), block.getString("log-level"),
                    new BoundedAcceptor.Limits(block.getInt("max-connections"),
                            block.getInt("max-connections-per-address"), block.getDuration("header-timeout"),
                            ClientTransport.FRAME_BYTES));
        }

        private static Optional<String> text(Config block, String name) {
            return Optional.of(block.getString(name)).filter(value -> !value.isBlank());
        }

        private static Optional<ClientTransport.Certificates> certificates(Config block) {
            List<String> files = List.of("tls-key", "tls-certificate", "tls-authority").stream()
                    .flatMap(name -> text(block, name).stream()).toList();
            if (files.isEmpty()) return Optional.empty();
            if (files.size() < 3)
                throw new ConfigException.BadValue("bios.gateway.actors",
                        "name all of tls-key, tls-certificate and tls-authority, or none of them");
            return Optional.of(new ClientTransport.Certificates(Path.of(files.get(0)), Path.of(files.get(1)),
                    Path.of(files.get(2)), block.getDuration("tls-reload")));
        }
    }

    static ActorGateway of(Gateway.Dependencies parts, GatewaySettings limits, ActorCalls calls) {
        return new ActorGateway(limits.actors(), calls, parts.memory(), limits, () -> {
            var name = new byte[16];
            parts.random().nextBytes(name);
            return HexFormat.of().formatHex(name);
        }, System::nanoTime); // edge: monotonic clock
    }

    /// Opens the port, until `service` ends; throws if it cannot be had.
    void start(ActorSystem<?> service) {
        var acceptor = BoundedAcceptor.bind(settings.bindHost().orElse(settings.host()), settings.port(),
                settings.certificates().isPresent(), settings.connections(), nanos);
        Config config = new ClientTransport(settings.host(), acceptor.port(), Optional.empty(),
                settings.certificates(), List.of(ClientTransport.GATEWAY), settings.logLevel())
                .behind(service.settings().config());
        ActorSystem<Object> system;
        try {
            system = ActorSystem.create(guardian(), ClientTransport.SYSTEM, config);
        } catch (RuntimeException failed) {
            acceptor.close();
            throw failed;
        }
        acceptor.passTo(boundPort(system));
        LOG.info("JVM clients connect to {}{}", system.address().hostPort().replaceFirst(".*@", ""),
                settings.certificates().isPresent() ? " over TLS" : "");
        CoordinatedShutdown.get(service).addTask(CoordinatedShutdown.PhaseServiceUnbind(), "actor-gateway",
                () -> {
                    acceptor.close();
                    system.terminate();
                    return system.getWhenTerminated().thenApply(_ -> Done.getInstance());
                });
    }

    /// The port on which Artery listens, behind the one that clients name.
    private static int boundPort(ActorSystem<?> system) {
        var provider = (RemoteActorRefProvider) ((ExtendedActorSystem) Adapter.toClassic(system)).provider();
        return ((ArteryTransport) provider.transport()).bindAddress().address().getPort().orElseThrow();
    }

    /// A stranger may send it anything that can be read.
    private Behavior<Object> guardian() {
        return Behaviors.setup(context -> {
            context.spawn(Behaviors.supervise(Behaviors.setup(this::gateway))
                    .onFailure(SupervisorStrategy.resume()), "gateway");
            return Behaviors.receive(Object.class).onAnyMessage(_ -> Behaviors.same()).build();
        });
    }

    private Behavior<Object> gateway(ActorContext<Object> context) {
        return Behaviors.receive(Object.class)
                .onMessage(ClientMessage.Connect.class, opening -> {
                    connect(context, opening);
                    return Behaviors.same();
                })
                .onAnyMessage(_ -> Behaviors.same())
                .onSignal(Terminated.class, _ -> {
                    Metrics.ACTOR_SESSIONS.dec();
                    return Behaviors.same();
                }).build();
    }

    private void connect(ActorContext<Object> context, ClientMessage.Connect opening) {
        try {
            if (opening.version() != ClientMessage.VERSION)
                throw new ApiException(ErrorCode.UNSUPPORTED, "the client speaks version "
                        + opening.version() + " of the protocol, this gateway " + ClientMessage.VERSION
                        + "; use the bios-protocol of this service");
            calls.checkKey(opening.key());
            if (context.getChildren().size() >= settings.maxSessions())
                throw new ApiException(ErrorCode.BUSY, "this gateway has " + settings.maxSessions()
                        + " clients, the most that it takes");
        } catch (ApiException refused) {
            LOG.debug("a client is refused: {}", refused.getMessage());
            opening.replyTo().tell(new ClientMessage.Refused(opening.attempt(),
                    ActorCalls.problem("connect", refused)));
            return;
        }
        var session = context.spawn(ActorSession.create(this, opening), names.get());
        context.watch(session);
        Metrics.ACTOR_SESSIONS.inc();
        opening.replyTo().tell(new ClientMessage.Connected(ClientMessage.VERSION, ClientMessage.MINOR,
                opening.attempt(), settings.silence().toMillis(), session.narrow()));
    }
}
