package bios.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.LinkedHashMap;
import java.util.Map;

/// The time of a small step with sequential calls, in milliseconds by part: the client's own processor time,
/// the parts that the server reports, and the remainder between the two.
record Breakdown(Map<String, Double> parts) {
    static Breakdown of(JsonNode client, double engineMillis) {
        Map<String, Double> parts = new LinkedHashMap<>();
        double left = client.path("in_turn_p50_ms").asDouble();
        parts.put("client", client.path("client_cpu_ms").asDouble());
        client.path("server").properties().forEach(p -> parts.put(p.getKey(), p.getValue().asDouble()));
        for (double part : parts.values()) left -= part;
        parts.put("http", Math.max(0, left));
        parts.put("one empty call, for comparison", client.path("http_ms").asDouble());
        parts.put("the engine alone, for comparison", engineMillis);
        return new Breakdown(parts);
    }

    ObjectNode json() {
        ObjectNode json = Report.JSON.createObjectNode();
        parts.forEach((name, millis) -> json.put(name, Report.three(millis)));
        return json;
    }
}
