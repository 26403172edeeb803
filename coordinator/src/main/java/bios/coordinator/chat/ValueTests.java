package bios.coordinator.chat;

import java.util.List;
import java.util.Locale;
import java.util.Map;

/// The tests of template values: `value is name(arguments)`.
final class ValueTests {
    private ValueTests() {}

    /// Whether `value is name(arguments)` holds.
    static boolean holds(String name, Object value, List<Object> arguments) {
        boolean compares = switch (name) {
            case "eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan",
                    ">", "ge", ">=", "in", "sameas", "divisibleby" -> true;
            default -> false;
        };
        if (arguments.size() != (compares ? 1 : 0))
            throw new TemplateException("the test " + name + " has the wrong number of arguments");
        return compares ? compared(name, value, arguments.getFirst()) : property(name, value);
    }

    private static boolean compared(String name, Object value, Object other) {
        return switch (name) {
            case "eq", "equalto", "==" -> Values.equal(value, other);
            case "ne", "!=" -> !Values.equal(value, other);
            case "lt", "lessthan", "<" -> Values.compare(value, other) < 0;
            case "le", "<=" -> Values.compare(value, other) <= 0;
            case "gt", "greaterthan", ">" -> Values.compare(value, other) > 0;
            case "ge", ">=" -> Values.compare(value, other) >= 0;
            case "in" -> Values.contains(other, value);
            case "sameas" -> value == other || value != null && value.equals(other);
            default -> Values.integer(Values.binary("%", value, other)) == 0;
        };
    }

    private static boolean property(String name, Object value) {
        return switch (name) {
            case "defined" -> !(value instanceof Undefined);
            case "undefined" -> value instanceof Undefined;
            case "none" -> value == null;
            case "string" -> value instanceof String;
            case "boolean" -> value instanceof Boolean;
            case "integer" -> value instanceof Long;
            case "float" -> value instanceof Double;
            case "number" -> value instanceof Long || value instanceof Double || value instanceof Boolean;
            case "mapping" -> value instanceof Map;
            case "sequence" -> value instanceof String || value instanceof List || value instanceof Map
                    || value instanceof Undefined;
            case "iterable" -> value instanceof String || value instanceof List || value instanceof Map
                    || value instanceof Undefined;
            case "callable" -> value instanceof Callable;
            case "true" -> Boolean.TRUE.equals(value);
            case "false" -> Boolean.FALSE.equals(value);
            case "odd" -> Math.floorMod(Values.integer(value), 2) == 1;
            case "even" -> Math.floorMod(Values.integer(value), 2) == 0;
            case "lower" -> cased(Values.text(value), Values.text(value).toLowerCase(Locale.ROOT));
            case "upper" -> cased(Values.text(value), Values.text(value).toUpperCase(Locale.ROOT));
            default -> throw new TemplateException("the test " + name + " is not supported");
        };
    }

    private static boolean cased(String text, String changed) {
        return text.equals(changed) && text.codePoints().anyMatch(c ->
                Character.isLowerCase(c) || Character.isUpperCase(c));
    }
}
