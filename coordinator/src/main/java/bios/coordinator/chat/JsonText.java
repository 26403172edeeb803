package bios.coordinator.chat;

import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/// Writes values as JSON in the way of Python's `json.dumps`.
final class JsonText {
    private final StringBuilder out = new StringBuilder();
    private final boolean ascii;
    private final Optional<String> indent;
    private final String comma;
    private final String colon;
    private final boolean sorted;

    private JsonText(boolean ascii, Optional<String> indent, String comma, String colon, boolean sorted) {
        this.ascii = ascii;
        this.indent = indent;
        this.comma = comma;
        this.colon = colon;
        this.sorted = sorted;
    }

    /// @param named the arguments of `tojson`: `indent`, `ensure_ascii`, `separators`, `sort_keys`
    static String of(Object value, Map<String, Object> named) {
        Object given = named.get("indent");
        Optional<String> indent = given == null ? Optional.empty() : Optional.of(given instanceof String text
                ? text : (String) Values.binary("*", " ", given));
        String comma = indent.isPresent() ? "," : ", ";
        String colon = ": ";
        if (named.get("separators") instanceof List<?> separators && separators.size() == 2) {
            comma = Values.string(separators.get(0));
            colon = Values.string(separators.get(1));
        }
        var writer = new JsonText(Values.truth(named.get("ensure_ascii")), indent, comma, colon,
                Values.truth(named.get("sort_keys")));
        writer.write(value, 1);
        return writer.out.toString();
    }

    private void write(Object value, int level) {
        RenderBudget.checkSize(out.length());
        switch (value) {
            case null -> out.append("null");
            case Boolean truth -> out.append(truth);
            case Long number -> out.append(number);
            case Double number -> out.append(Double.isNaN(number) ? "NaN" : Double.isInfinite(number)
                    ? number > 0 ? "Infinity" : "-Infinity" : Values.number(number));
            case String text -> quote(text);
            case List<?> list -> {
                out.append('[');
                for (Iterator<?> i = list.iterator(); i.hasNext();) {
                    line(level);
                    write(i.next(), level + 1);
                    if (i.hasNext()) out.append(comma);
                }
                if (!list.isEmpty()) line(level - 1);
                out.append(']');
            }
            case Map<?, ?> map -> object(map, level);
            default -> throw new TemplateException("tojson: " + Values.kind(value) + " is no JSON");
        }
    }

    private void object(Map<?, ?> map, int level) {
        out.append('{');
        Map<?, ?> entries = map;
        if (sorted) {
            var order = new TreeMap<Object, Object>(Values::compare);
            order.putAll(map);
            entries = order;
        }
        boolean first = true;
        for (Map.Entry<?, ?> entry : entries.entrySet()) {
            if (!first) out.append(comma);
            first = false;
            line(level);
            Object key = entry.getKey();
            quote(key instanceof String text ? text : of(key, Map.of()));
            out.append(colon);
            write(entry.getValue(), level + 1);
        }
        if (!map.isEmpty()) line(level - 1);
        out.append('}');
    }

    private void line(int level) {
        indent.ifPresent(one -> {
            RenderBudget.checkSize((long) one.length() * level);
            out.append('\n').append(one.repeat(level));
        });
    }

    private void quote(String text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\b' -> out.append("\\b");
                case '\f' -> out.append("\\f");
                default -> {
                    if (c < ' ' || ascii && c > '~') out.append(String.format("\\u%04x", (int) c));
                    else out.append(c);
                }
            }
        }
        out.append('"');
    }
}
