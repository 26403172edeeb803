package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import bios.coordinator.health.Check;
import io.prometheus.metrics.expositionformats.PrometheusTextFormatWriter;
import io.prometheus.metrics.instrumentation.jvm.JvmMetrics;
import io.prometheus.metrics.model.registry.PrometheusRegistry;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.stream.StreamSupport;
import org.apache.pekko.actor.typed.ActorSystem;
import org.apache.pekko.cluster.Member;
import org.apache.pekko.cluster.MemberStatus;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.http.javadsl.Http;
import org.apache.pekko.http.javadsl.ServerBinding;
import org.apache.pekko.http.javadsl.model.ContentTypes;
import org.apache.pekko.http.javadsl.model.HttpMethods;
import org.apache.pekko.http.javadsl.model.HttpRequest;
import org.apache.pekko.http.javadsl.model.HttpResponse;
import org.apache.pekko.japi.function.Function;

/// What those who run a node ask it, without a key: `/healthz` (the process lives), `/readyz` (it can serve)
/// and `/metrics` (in Prometheus' text format). The gateway answers them beside the protocol; a node without
/// a gateway binds them alone.
public final class Management {
    private static final Duration DRAIN = Duration.ofSeconds(1);
    private static final List<MemberStatus> STATUSES = List.of(MemberStatus.joining(),
            MemberStatus.weaklyUp(), MemberStatus.up(), MemberStatus.leaving(), MemberStatus.exiting(),
            MemberStatus.down());

    private final ActorSystem<?> system;
    private final List<Check> checks;

    /// @param checks what has to hold before the node can serve
    public Management(ActorSystem<?> system, List<Check> checks) {
        this.system = system;
        this.checks = List.copyOf(checks);
        Java.begin();
    }

    /// Counts what the JVM and the process do, once.
    private static final class Java {
        static {
            JvmMetrics.builder().register();
        }

        private Java() {}

        static void begin() {
            // being loaded is all
        }
    }

    /// Serves the three pages on `host` and `port` (0: any free one) until the system ends.
    public static CompletionStage<ServerBinding> bind(ActorSystem<?> system, String host, int port,
            List<Check> checks) {
        var management = new Management(system, checks);
        Function<HttpRequest, CompletionStage<HttpResponse>> answers = request ->
                management.answer(request).orElseGet(() -> {
                    request.discardEntityBytes(system);
                    return CompletableFuture.completedStage(HttpResponse.create().withStatus(404)
                            .withEntity("here are /healthz, /readyz and /metrics\n"));
                });
        return Http.get(system).newServerAt(host, port).bind(answers)
                .thenApply(binding -> binding.addToCoordinatedShutdown(DRAIN, system));
    }

    /// The answer, if the request is for one of the three pages.
    Optional<CompletionStage<HttpResponse>> answer(HttpRequest request) {
        if (!request.method().equals(HttpMethods.GET)) return Optional.empty();
        HttpResponse response = switch (request.getUri().path()) {
            case "/healthz" -> json(200, Reply.object("status", "ok"));
            case "/readyz" -> ready();
            case "/metrics" -> metrics();
            default -> null;
        };
        if (response == null) return Optional.empty();
        request.discardEntityBytes(system);
        return Optional.of(CompletableFuture.completedStage(response));
    }

    private HttpResponse ready() {
        var answers = new ArrayList<Map<String, Object>>();
        boolean all = true;
        for (Check check : checks) {
            Optional<String> problem = problem(check);
            all &= problem.isEmpty();
            answers.add(Reply.object("check", check.name(), "ok", problem.isEmpty(), "message", problem));
        }
        return json(all ? 200 : 503, Reply.object("status", all ? "ready" : "not_ready", "checks", answers));
    }

    private static Optional<String> problem(Check check) {
        try {
            return check.problem().get();
        } catch (RuntimeException failed) {
            return Optional.of("the check itself failed: " + failed);
        }
    }

    private HttpResponse metrics() {
        for (Check check : checks)
            Metrics.READY.labelValues(check.name()).set(problem(check).isEmpty() ? 1 : 0);
        members();
        var text = new ByteArrayOutputStream();
        try {
            PrometheusTextFormatWriter.create().write(text, PrometheusRegistry.defaultRegistry.scrape());
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
        return HttpResponse.create().withEntity(
                ContentTypes.parse(PrometheusTextFormatWriter.CONTENT_TYPE), text.toByteArray());
    }

    private void members() {
        if (!system.settings().config().getString("pekko.actor.provider").contains("luster")) return;
        var state = Cluster.get(system).state();
        var counts = new TreeMap<String, Integer>();
        STATUSES.forEach(status -> counts.put(word(status), 0));
        StreamSupport.stream(state.getMembers().spliterator(), false).map(Member::status)
                .forEach(status -> counts.merge(word(status), 1, Integer::sum));
        counts.forEach((status, count) -> Metrics.CLUSTER_MEMBERS.labelValues(status).set(count));
        Metrics.CLUSTER_UNREACHABLE.set(state.getUnreachable().size());
    }

    private static String word(MemberStatus status) {
        return status.toString().toLowerCase(Locale.ROOT);
    }

    private static HttpResponse json(int status, Object body) {
        return HttpResponse.create().withStatus(status)
                .withEntity(ContentTypes.APPLICATION_JSON, JsonWriter.write(body));
    }
}
