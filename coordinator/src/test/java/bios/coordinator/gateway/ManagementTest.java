package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.health.Check;
import bios.persistence.embedded.EmbeddedDatabase;
import bios.persistence.journal.JdbcJournal;
import com.typesafe.config.ConfigFactory;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Path;
import java.util.List;
import org.apache.pekko.actor.testkit.typed.javadsl.ActorTestKit;
import org.apache.pekko.cluster.typed.Cluster;
import org.apache.pekko.cluster.typed.Join;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// The management endpoints of a node without a gateway, on a real cluster of one node and a real journal.
class ManagementTest {
    @TempDir Path folder;

    private static HttpResponse<String> get(HttpClient client, int port, String path) throws Exception {
        return client.send(HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + path)).build(),
                HttpResponse.BodyHandlers.ofString());
    }

    @Test void aNodeIsReadyWhenItHasJoinedAndTheJournalAnswers() throws Exception {
        EmbeddedDatabase.createSchema(folder);
        var config = ConfigFactory.parseString("pekko.actor.provider = cluster, pekko.loglevel = WARNING,"
                + " pekko.remote.artery.canonical { hostname = \"127.0.0.1\", port = 0 },"
                + " pekko.cluster.jmx.enabled = off, bios.health.journal-interval = 100 ms")
                .withFallback(JdbcJournal.config(folder)).withFallback(ConfigFactory.load());
        ActorTestKit kit = ActorTestKit.create("management", config);
        try (HttpClient client = HttpClient.newHttpClient()) {
            int port = Management.bind(kit.system(), "127.0.0.1", 0,
                    List.of(Check.cluster(kit.system()), Check.journal(kit.system()))).toCompletableFuture()
                    .join().localAddress().getPort();
            assertEquals(200, get(client, port, "/healthz").statusCode());
            var before = get(client, port, "/readyz");
            assertEquals(503, before.statusCode());
            assertTrue(before.body().contains("serves when it is Up"), before.body());
            var cluster = Cluster.get(kit.system());
            cluster.manager().tell(Join.create(cluster.selfMember().address()));
            HttpResponse<String> ready = before;
            while (ready.statusCode() != 200) ready = get(client, port, "/readyz");
            assertTrue(ready.body().contains("\"status\":\"ready\""), ready.body());
            var metrics = get(client, port, "/metrics").body();
            assertTrue(metrics.contains("bios_cluster_members{status=\"up\"} 1.0"), metrics);
            assertTrue(metrics.contains("bios_cluster_unreachable_members 0.0"), metrics);
            assertTrue(metrics.contains("bios_ready{check=\"journal\"} 1.0"), metrics);
            assertEquals(404, get(client, port, "/").statusCode());
        } finally {
            kit.shutdownTestKit();
        }
    }

    @Test void aFailingJournalIsReported() throws Exception {
        // A folder without tables: every access to the journal fails.
        var config = ConfigFactory.parseString("pekko.loglevel = OFF, bios.health.journal-interval = 100 ms")
                .withFallback(JdbcJournal.config(folder.resolve("none")))
                .withFallback(ConfigFactory.load());
        ActorTestKit kit = ActorTestKit.create("no-journal", config);
        try {
            Check journal = Check.journal(kit.system());
            String problem = journal.problem().get().orElseThrow();
            while (problem.contains("not answered yet")) problem = journal.problem().get().orElseThrow();
            assertTrue(problem.contains("the journal failed") || problem.contains("did not answer"), problem);
        } finally {
            kit.shutdownTestKit();
        }
    }
}
