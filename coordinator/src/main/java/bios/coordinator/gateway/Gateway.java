package bios.coordinator.gateway;

import bios.coordinator.fleet.Fleet;
import bios.coordinator.health.Check;
import bios.persistence.blob.BlobStore;
import bios.persistence.index.RunIndex;
import bios.protocol.sampling.SamplingCommand;
import com.typesafe.config.Config;
import com.typesafe.config.ConfigFactory;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.time.Duration;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.pekko.actor.typed.ActorRef;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.http.javadsl.Http;
import org.apache.pekko.http.javadsl.ServerBinding;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.http.javadsl.settings.ServerSettings;
import org.apache.pekko.japi.function.Function;

/// The HTTP side of the service: docs/reference/http.md.
public final class Gateway {
    private static final Duration DRAIN = Duration.ofSeconds(5);

    private Gateway() {}

    /// The rest of the service, as the gateway sees it.
    ///
    /// @param accounts who may use the service
    /// @param runs reaches the entities of runs
    /// @param sessions reaches the entities of sessions
    /// @param fleet the newest fleet, as [bios.coordinator.fleet.ModelDirectory] publishes it
    /// @param router this coordinator's [bios.coordinator.sampling.SamplingRouter]
    /// @param ready whether the service can serve: what `api/v1/healthz` and `readyz` say
    /// @param clock the time
    /// @param ids new random ids, for sessions and requests
    /// @param random for the key of signed URLs
    public record Parts(Accounts accounts, RunDirectory runs, SessionDirectory sessions,
            Supplier<Fleet> fleet, ActorRef<SamplingCommand> router, BlobStore blobs, RunIndex index,
            BooleanSupplier ready, InstantSource clock, Supplier<UUID> ids, SecureRandom random) {}

    /// Serves on `host` and `port` (0: any free one) until the system ends; limits are `bios.gateway` of
    /// the system's configuration.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            Parts parts) {
        return bind(system, host, port, parts,
                GatewaySettings.of(system.settings().config().getConfig("bios.gateway")));
    }

    /// The same with these settings.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            Parts parts, GatewaySettings settings) {
        return bind(system, host, port, parts, settings, List.of());
    }

    /// The same with `/readyz` asking `checks` as well, beside what is in `parts`.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            Parts parts, GatewaySettings settings, List<Check> checks) {
        ExecutorService readers = Executors.newFixedThreadPool(settings.readers(),
                Thread.ofPlatform().daemon().name("bios-gateway-reader-", 0).factory());
        ExecutorService blocking =
                Executors.newThreadPerTaskExecutor(Thread.ofVirtual().name("bios-gateway-", 0).factory());
        system.getWhenTerminated().whenComplete((_, _) -> {
            readers.shutdown();
            blocking.shutdown();
        });
        var backend = new Backend(system, parts, settings, blocking);
        var handler = new HttpHandler(system, parts, settings, readers,
                endpoints(parts, settings, backend, blocking));
        var all = new ArrayList<>(checks);
        all.addFirst(Check.models(parts.fleet()));
        all.addFirst(Check.that("gateway", parts.ready(), "the service is starting"));
        var management = new Management(system, all);
        return Http.get(system).newServerAt(host, port)
                .withSettings(server(system.settings().config(), settings)).bind(answers(management, handler))
                .thenApply(binding -> binding.addToCoordinatedShutdown(DRAIN, system));
    }

    private static Function<HttpRequest, CompletionStage<HttpResponse>> answers(Management management,
            HttpHandler handler) {
        return request -> management.answer(request).orElseGet(() -> handler.answer(request));
    }

    /// Every call of the protocol.
    static List<Endpoint> endpoints(Parts parts, GatewaySettings settings, Backend backend,
            ExecutorService blocking) {
        byte[] secret = settings.archiveUrlSecret().map(text -> text.getBytes(StandardCharsets.UTF_8))
                .orElseGet(() -> {
                    byte[] made = new byte[32];
                    parts.random().nextBytes(made);
                    return made;
                });
        var operations = new Operations(backend);
        var all = new ArrayList<Endpoint>();
        all.addAll(new ServiceCalls(backend, parts.ids()).endpoints());
        all.addAll(new RunCalls(backend, operations).endpoints());
        all.addAll(new TrainingCalls(backend, operations).endpoints());
        all.addAll(new FutureCalls(backend).endpoints());
        all.addAll(new SamplingCalls(backend, operations).endpoints());
        all.addAll(new ListingCalls(backend).endpoints());
        all.addAll(new ArchiveCalls(backend, operations, new SignedUrls(secret), blocking).endpoints());
        return List.copyOf(all);
    }

    /// Long polls have no timeout of the server's; bodies are limited where they are read.
    private static ServerSettings server(Config system, GatewaySettings settings) {
        Config own = ConfigFactory.parseString("""
                pekko.http.server {
                  request-timeout = infinite
                  idle-timeout = 90 s
                  server-header = "bios"
                  transparent-head-requests = off
                  parsing {
                    max-content-length = infinite
                    max-uri-length = 8k
                    uri-parsing-mode = relaxed
                    illegal-header-warnings = off
                    error-handler = "%s"
                    error-logging-verbosity = off
                  }
                  max-connections = %d
                }
                """.formatted(MalformedRequest.class.getName(), settings.maxConnections()));
        return ServerSettings.create(own.withFallback(system));
    }
}
