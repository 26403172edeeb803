package bios.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.LinkedHashMap;
import java.util.Map;

/// Where the time of a small step goes, in milliseconds by part. What the server says of itself (`server` in
/// the client's line) stands beside what can be seen from outside: the client's own processor time, an empty
/// call over the same kind of connection, the engine's time for such a step alone.
record Breakdown(Map<String, Double> parts) {
    static Breakdown of(JsonNode client, double engineMillis) {
        Map<String, Double> parts = new LinkedHashMap<>();
        parts.put("client", client.path("client_cpu_ms").asDouble());
        parts.put("http, one empty call", client.path("http_ms").asDouble());
        client.path("server").properties()
                .forEach(part -> parts.put("server: " + part.getKey(), part.getValue().asDouble()));
        parts.put("engine, alone", engineMillis);
        double rest = client.path("p50_ms").asDouble() - parts.get("client") - engineMillis;
        parts.put("all but client and engine", Math.max(0, rest));
        return new Breakdown(parts);
    }

    ObjectNode json() {
        ObjectNode json = Report.JSON.createObjectNode();
        parts.forEach((name, millis) -> json.put(name, Report.three(millis)));
        return json;
    }
}
