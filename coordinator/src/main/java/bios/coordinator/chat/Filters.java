package bios.coordinator.chat;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// The filters of templates.
final class Filters {
    private static final Pattern WORD = Pattern.compile("[^-\\s({\\[<]+");

    private Filters() {}

    /// The value of `value | name(given)`.
    static Object apply(String name, Object value, List<Object> arguments, Map<String, Object> named) {
        var given = new ArgumentReader(name, arguments, named);
        Object result = switch (name) {
            case "upper", "lower", "capitalize", "title", "trim", "indent", "replace", "string", "safe",
                    "wordcount" -> text(name, value, given);
            case "abs", "int", "float", "round" -> number(name, value, given);
            case "map", "select", "reject", "selectattr", "rejectattr" -> selection(name, value, given);
            case "default", "d" -> {
                Object otherwise = given.next("default_value", "");
                boolean empty = Values.truth(given.next("boolean", false));
                yield value instanceof Undefined || empty && !Values.truth(value) ? otherwise : value;
            }
            case "tojson" -> json(value, given);
            case "length", "count" -> Values.length(value);
            default -> collection(name, value, given);
        };
        given.requireAllRead();
        return result;
    }

    private static String json(Object value, ArgumentReader given) {
        var options = new HashMap<String, Object>();
        options.put("indent", given.next("indent", null));
        options.putAll(given.named());
        if (!List.of("indent", "ensure_ascii", "separators", "sort_keys").containsAll(options.keySet()))
            throw new TemplateException("tojson: an argument is not known");
        return JsonText.of(value, options);
    }

    private static Object text(String name, Object value, ArgumentReader given) {
        String text = Values.text(value);
        return switch (name) {
            case "upper" -> text.toUpperCase(Locale.ROOT);
            case "lower" -> text.toLowerCase(Locale.ROOT);
            case "capitalize" -> PythonStrings.capitalized(text);
            case "title" -> WORD.matcher(text).replaceAll(word ->
                    Matcher.quoteReplacement(PythonStrings.capitalized(word.group())));
            case "trim" -> PythonStrings.strip(text, given.stringOrNull("chars"), true, true);
            case "indent" -> indent(text, given);
            case "replace" -> PythonStrings.replace(text, given.string("old"), given.string("new"),
                    count(given.next("count", null)));
            case "wordcount" -> (long) PythonStrings.split(text, null, -1, false).size();
            default -> text;
        };
    }

    private static long count(Object given) {
        return given == null ? -1 : Values.integer(given);
    }

    private static String indent(String text, ArgumentReader given) {
        Object width = given.next("width", 4L);
        boolean first = Values.truth(given.next("first", false));
        boolean blank = Values.truth(given.next("blank", false));
        String space = width instanceof String unit ? unit : (String) Values.binary("*", " ", width);
        List<Object> lines = PythonStrings.lines(text + "\n", false);
        RenderBudget.checkSize(text.length() + (long) lines.size() * space.length());
        var out = new StringBuilder(first ? space : "");
        for (int i = 0; i < lines.size(); i++) {
            String line = (String) lines.get(i);
            if (i > 0) out.append('\n').append(blank || !line.isEmpty() ? space : "");
            out.append(line);
        }
        return out.toString();
    }

    private static Object number(String name, Object value, ArgumentReader given) {
        return switch (name) {
            case "abs" -> value instanceof Double real ? (Object) Math.abs(real)
                    : (Object) Math.abs(Values.integer(value));
            case "int" -> integer(value, given.next("default", 0L));
            case "float" -> real(value, given.next("default", 0.0));
            default -> {
                int precision = Math.clamp(given.integer("precision", 0), -20, 20);
                RoundingMode mode = switch (Values.text(given.next("method", "common"))) {
                    case "ceil" -> RoundingMode.CEILING;
                    case "floor" -> RoundingMode.FLOOR;
                    default -> RoundingMode.HALF_EVEN;
                };
                yield new BigDecimal(((Number) real(value, null)).doubleValue()).setScale(precision, mode)
                        .doubleValue();
            }
        };
    }

    private static Object integer(Object value, Object otherwise) {
        try {
            return switch (value) {
                case Boolean truth -> truth ? 1L : 0L;
                case Long number -> number;
                case Double number -> number.longValue();
                case String text when text.matches("\\s*[-+]?\\d+\\s*") -> Long.valueOf(text.strip());
                case String text -> Double.valueOf(text.strip()).longValue();
                case null, default -> otherwise;
            };
        } catch (NumberFormatException _) {
            return otherwise;
        }
    }

    private static Object real(Object value, Object otherwise) {
        try {
            return switch (value) {
                case Boolean truth -> truth ? 1.0 : 0.0;
                case Long number -> number.doubleValue();
                case Double number -> number;
                case String text -> Double.valueOf(text.strip());
                case null, default -> {
                    if (otherwise == null) throw new TemplateException(Values.kind(value) + " is no number");
                    yield otherwise;
                }
            };
        } catch (NumberFormatException _) {
            return otherwise;
        }
    }

    // ---- lists ----

    /// The value at a path of attributes, `a.b` or `a.0`.
    private static Object attribute(Object value, Object path) {
        return attribute(value, path, null);
    }

    /// @param otherwise takes the place of an attribute that is not there; null: nothing does
    private static Object attribute(Object value, Object path, Object otherwise) {
        if (path instanceof Long) return Values.item(value, path);
        Object at = value;
        for (Object name : PythonStrings.split(Values.string(path), ".", -1, false)) {
            at = Values.item(at, name.toString().matches("\\d{1,9}") ? Long.valueOf(name.toString()) : name);
            if (otherwise != null && at instanceof Undefined) at = otherwise;
        }
        return at;
    }

    private static Object selection(String name, Object value, ArgumentReader given) {
        var chosen = new ArrayList<Object>();
        if (name.equals("map")) {
            Map<String, Object> named = given.named();
            if (named.containsKey("attribute")) {
                for (Object item : Values.items(value))
                    chosen.add(attribute(item, named.get("attribute"), named.get("default")));
                return chosen;
            }
            String filter = given.string("filter");
            List<Object> arguments = given.rest();
            for (Object item : Values.items(value)) chosen.add(apply(filter, item, arguments, named));
            return chosen;
        }
        boolean ofAttribute = name.endsWith("attr");
        Object path = ofAttribute ? given.next("attribute") : null;
        boolean wanted = name.startsWith("select");
        String test = given.has("test") ? given.string("test") : "";
        List<Object> arguments = given.rest();
        Predicate<Object> holds = item -> test.isEmpty() ? Values.truth(item)
                : ValueTests.holds(test, item, arguments);
        for (Object item : Values.items(value))
            if (holds.test(ofAttribute ? attribute(item, path) : item) == wanted) chosen.add(item);
        return chosen;
    }

    private static Object collection(String name, Object value, ArgumentReader given) {
        return switch (name) {
            case "first" -> ends(Values.items(value), 0);
            case "last" -> ends(Values.items(value), -1);
            case "list" -> new ArrayList<>(Values.items(value));
            case "items" -> value instanceof Map<?, ?> map ? Methods.pairs(map)
                    : value instanceof Undefined ? List.of() : Values.items(null);
            case "join" -> join(value, given);
            case "reverse" -> Values.slice(value, null, null, -1L);
            case "sort" -> sort(Values.items(value), given);
            case "min", "max" -> extreme(Values.items(value), name, given);
            case "unique" -> unique(Values.items(value), given);
            case "sum" -> sum(Values.items(value), given);
            case "dictsort" -> {
                if (!(value instanceof Map<?, ?> map)) throw new TemplateException(
                        "dictsort: " + Values.kind(value) + " is no object");
                var pairs = Methods.pairs(map);
                pairs.sort(Comparator.comparing(pair -> folded(((List<?>) pair).getFirst()),
                        Values::compare));
                yield pairs;
            }
            default -> throw new TemplateException("the filter " + name + " is not supported");
        };
    }

    private static Object ends(List<Object> items, long at) {
        return Values.item(items, at);
    }

    private static Object join(Object value, ArgumentReader given) {
        String separator = Values.text(given.next("d", ""));
        Object path = given.next("attribute", null);
        var texts = new ArrayList<Object>();
        for (Object item : Values.items(value))
            texts.add(Values.text(path == null ? item : attribute(item, path)));
        return Methods.join(separator, texts);
    }

    private static Object folded(Object value) {
        return value instanceof String text ? text.toLowerCase(Locale.ROOT) : value;
    }

    /// What items are compared by.
    private static Object key(Object item, Object path, boolean exact) {
        Object value = path == null ? item : attribute(item, path);
        return exact ? value : folded(value);
    }

    private static Object sort(List<Object> items, ArgumentReader given) {
        boolean reverse = Values.truth(given.next("reverse", false));
        boolean exact = Values.truth(given.next("case_sensitive", false));
        Object path = given.next("attribute", null);
        var sorted = new ArrayList<>(items);
        Comparator<Object> order = Comparator.comparing(item -> key(item, path, exact), Values::compare);
        sorted.sort(reverse ? order.reversed() : order);
        return sorted;
    }

    private static Object extreme(List<Object> items, String name, ArgumentReader given) {
        boolean exact = Values.truth(given.next("case_sensitive", false));
        Object path = given.next("attribute", null);
        if (items.isEmpty()) return new Undefined(name);
        Comparator<Object> order = Comparator.comparing(item -> key(item, path, exact), Values::compare);
        return name.equals("min") ? Collections.min(items, order) : Collections.max(items, order);
    }

    private static Object unique(List<Object> items, ArgumentReader given) {
        boolean exact = Values.truth(given.next("case_sensitive", false));
        Object path = given.next("attribute", null);
        var seen = new LinkedHashSet<Object>();
        var unique = new ArrayList<Object>();
        for (Object item : items) if (seen.add(key(item, path, exact))) unique.add(item);
        return unique;
    }

    private static Object sum(List<Object> items, ArgumentReader given) {
        Object path = given.next("attribute", null);
        Object sum = given.next("start", 0L);
        for (Object item : items) sum = Values.binary("+", sum, path == null ? item : attribute(item, path));
        return sum;
    }
}
