package bios.coordinator.chat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/// Templates render to the character what the transformers library makes of them; `chat/generate.py` has
/// written the golden file.
class ChatTemplateGoldenTest {
    private static final ZonedDateTime NOW = ZonedDateTime.of(2026, 7, 4, 15, 6, 7, 0, ZoneOffset.UTC);
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private static byte[] resource(String name) throws IOException {
        try (InputStream in = ChatTemplateGoldenTest.class.getResourceAsStream("/chat/" + name)) {
            return in.readAllBytes();
        }
    }

    private static Object value(JsonNode node) {
        return MAPPER.convertValue(node, Object.class);
    }

    /// Integers as longs, as the gateway reads them.
    private static Object longs(Object value) {
        return switch (value) {
            case Integer number -> number.longValue();
            case List<?> list -> {
                var items = new ArrayList<Object>();
                list.forEach(item -> items.add(longs(item)));
                yield items;
            }
            case Map<?, ?> map -> {
                var object = new LinkedHashMap<Object, Object>();
                map.forEach((name, item) -> object.put(name, longs(item)));
                yield object;
            }
            case null, default -> value;
        };
    }

    @SuppressWarnings("unchecked") // a JSON object
    private static Map<String, Object> variables(JsonNode node) {
        return (Map<String, Object>) longs(value(node));
    }

    private static String rendered(String source, Map<String, Object> variables) {
        try {
            return ChatTemplate.parse(source).render(variables, NOW);
        } catch (TemplateException refused) {
            return "fails: " + refused.getMessage();
        } catch (RuntimeException broken) {
            return "throws: " + broken;
        }
    }

    private static void compare(String what, String source, JsonNode wanted, Map<String, Object> variables,
            List<String> wrong) {
        String is = rendered(source, variables);
        boolean same = wanted.has("fails")
                ? is.startsWith("fails: ") && is.endsWith(raised(wanted.path("fails").asText()))
                : is.equals(wanted.path("text").asText());
        if (!same) wrong.add(what + "\n  is     " + is + "\n  wanted " + wanted.path("text").asText()
                + wanted.path("fails").asText());
    }

    /// The message of an exception that the template raises; of other failures only that they fail counts.
    private static String raised(String failure) {
        return failure.startsWith("TemplateError: ") ? failure.substring(15) : "";
    }

    @Test void chatsAreRenderedAsByTheTransformersLibrary() throws IOException {
        var wrong = new ArrayList<String>();
        JsonNode golden = MAPPER.readTree(resource("golden.json"));
        for (JsonNode chat : golden.path("chats")) {
            String name = chat.path("template").asText();
            String source = new String(resource(name + ".jinja"), StandardCharsets.UTF_8);
            compare(name + " " + chat.path("chat").asText(), source, chat, variables(chat.path("variables")),
                    wrong);
        }
        assertTrue(golden.path("chats").size() > 300);
        assertEquals(List.of(), wrong, () -> String.join("\n", wrong));
    }

    @Test void expressionsAreEvaluatedAsByTheTransformersLibrary() throws IOException {
        var wrong = new ArrayList<String>();
        JsonNode golden = MAPPER.readTree(resource("golden.json"));
        for (JsonNode snippet : golden.path("snippets")) {
            String source = snippet.path("source").asText();
            compare(source, source, snippet, variables(golden.path("values")), wrong);
        }
        assertTrue(golden.path("snippets").size() > 200);
        assertEquals(List.of(), wrong, () -> wrong.size() + " wrong\n" + String.join("\n", wrong));
    }

    @Test void theTimeIsToldAsPythonTellsIt() {
        assertEquals("04 Jul 2026, Saturday 15:06:07 100%", rendered(
                "{{ strftime_now('%d %b %Y, %A %H:%M:%S') }} 100%", Map.of()));
        assertEquals("fails: strftime_now: %Q is not supported", rendered("{{ strftime_now('%Q') }}",
                Map.of()));
    }

    @Test void whatIsNotKnownIsRefusedByNameAndLine() {
        for (String[] row : new String[][] {
                {"a\n{% include 'x' %}", "line 2: 'include': is not supported in chat templates"},
                {"{% import 'x' as y %}", "line 1: 'import': is not supported in chat templates"},
                {"{{ x | frobnicate }}", "the filter frobnicate is not supported"},
                {"{{ x is frobnicated }}", "the test frobnicated is not supported"},
                {"{{ open('/etc/passwd') }}", "there is no function open"},
                {"{{ ''.__class__.mro() }}", "'__class__' is not defined"},
                {"{% if x %}", "line 1: 'if': has no endif"}, {"\n{% endif %}",
                    "line 2: 'endif': nothing is open that it could end"},
                {"{{ 'a }}", "line 1: a string does not end"}, {"{{ (1 }}", "'}' closes nothing"},
                {"{{ a", "line 1: a tag does not end"}, {"{{ }}", "line 1: an expression is expected"},
                {"{% for x in y recursive %}{% endfor %}", "line 1: 'recursive' is not expected"}}) {
            String is = rendered(row[0], Map.of());
            assertTrue(is.startsWith("fails: ") && is.endsWith(row[1]), () -> row[0] + " gives " + is);
        }
    }

    @Test void aTemplateThatWouldNotEndIsStopped() {
        String thousand = "range(1000)";
        for (String source : List.of("{% for a in " + thousand + " %}{% for b in " + thousand
                + " %}{% for c in " + thousand + " %}{{ c }}{% endfor %}{% endfor %}{% endfor %}",
                "{{ 'x' * 100000000000 }}", "{{ range(10000000) }}", "{{ [0] * 4611686018427387904 }}",
                "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 'a'|indent(1000000000) }}",
                "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
                        + "{% endfor %}", "{{ ('x' * 4000000).replace('', 'y' * 4000000) }}",
                "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
                        + "{% endfor %}", "{{ [1, [2]]|tojson(indent=1000000000) }}",
                "{{ 9223372036854775807 + 1 }}", "{{ " + "(".repeat(5000) + "1" + ")".repeat(5000) + " }}",
                "{% if 1 %}".repeat(5000) + "{% endif %}".repeat(5000), "{{ " + "-".repeat(5000) + "1 }}",
                "{{ ('x' * 1000000)|join('y' * 1000000) }}")) {
            String is = rendered(source, Map.of());
            assertTrue(is.startsWith("fails: "), () -> source.substring(0, 40) + " gives " + is.substring(0,
                    Math.min(200, is.length())));
        }
    }
}
