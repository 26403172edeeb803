package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.Wait;
import bios.persistence.embedded.EmbeddedDatabase;
import java.nio.file.Path;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Requests for ids that nobody has leave nothing behind.
class InventedIdsTest {
    private static final int IDS = 1000;
    private static final int AT_ONCE = 50;
    @TempDir Path folder;

    /// The rows of each table.
    private Map<String, Long> rows() throws SQLException {
        var found = new TreeMap<String, Long>();
        try (var connection = EmbeddedDatabase.connect(EmbeddedDatabase.url(folder.resolve("journal")));
                var statement = connection.createStatement()) {
            var tables = new ArrayList<String>();
            try (var named = connection.getMetaData().getTables(null, "PUBLIC", null, null)) {
                while (named.next()) tables.add(named.getString("TABLE_NAME"));
            }
            assertTrue(tables.contains("event_journal"), tables.toString());
            for (String table : tables)
                try (var counted = statement.executeQuery("SELECT COUNT(*) FROM \"" + table + "\"")) {
                    counted.next();
                    found.put(table, counted.getLong(1));
                }
        }
        return found;
    }

    /// The run's line in the index is written after its creation is answered.
    private Map<String, Long> rowsOnceTheRunIsListed() throws Exception {
        var found = new AtomicReference<Map<String, Long>>(Map.of());
        Wait.until(() -> {
            found.set(rows());
            return found.get().get("bios_run") == 1;
        }, () -> found.get().toString());
        return found.get();
    }

    private static int ask(TestClient service, int kind, long number) {
        String run = "usf-tiny-" + String.format("%016x", number);
        String session = String.format("0a1b2c3d-0000-4000-8000-%012x", number & 0xffffffffffffL);
        return (switch (kind) {
            case 0 -> service.get("training_runs/" + run);
            case 1 -> service.get("training_runs/" + run + "/checkpoints");
            case 2 -> service.post("retrieve_future", "{'request_id': '" + run + ":1'}");
            case 3 -> service.post("optim_step", "{'model_id': '" + run
                    + "', 'seq_id': 1, 'adam_params': {}}");
            case 4 -> service.post("unload_model", "{'model_id': '" + run + "'}");
            case 5 -> service.post("session_heartbeat", "{'session_id': '" + session + "'}");
            default -> service.post("create_sampling_session", "{'session_id': '" + session
                    + "', 'sampling_session_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}");
        }).status();
    }

    @Test void aThousandOfThemAreRefusedAndNothingGrows() throws Exception {
        try (var service = new RealService(folder, Accounts.fromLines("keys", List.of("alice tml-alice-key")),
                ""); var threads = Executors.newFixedThreadPool(AT_ONCE)) {
            service.key = "tml-alice-key";
            service.post("create_session", "{'session_id': '0a1b2c3d-0000-4000-8000-00000000000a'}");
            String run = service.post("create_model", "{'session_id': '0a1b2c3d-0000-4000-8000-00000000000a',"
                    + " 'model_seq_id': 1, 'base_model': 'ultrasafe/usf-tiny'}").text("model_id");
            assertEquals(200, service.get("training_runs/" + run).status());
            Map<String, Long> before = rowsOnceTheRunIsListed();
            var random = new Random(12);
            var answers = random.longs(IDS).boxed().toList();
            var asked = new TreeMap<Integer, Integer>();
            for (var answer : answers.stream().map(number -> threads.submit(() ->
                    ask(service, (int) Math.floorMod(number, 7L), number))).toList())
                asked.merge(answer.get(), 1, Integer::sum);
            assertEquals(Map.of(404, IDS), asked);
            assertEquals(before, rows());
            assertEquals(200, service.get("training_runs/" + run).status());
        }
    }
}
