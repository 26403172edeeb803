package bios.coordinator.chat;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/// The values of templates and what Python does with them: null, [Boolean], [Long], [Double], [String],
/// [List], [Map], [Undefined], [Callable] and [Attributes].
final class Values {
    private Values() {}

    static String kind(Object value) {
        return switch (value) {
            case null -> "none";
            case Boolean _ -> "a boolean";
            case Long _, Double _ -> "a number";
            case String _ -> "a string";
            case List<?> _ -> "a list";
            case Map<?, ?> _ -> "an object";
            case Undefined(var name) -> "'" + name + "', which is not defined";
            default -> "a function or namespace";
        };
    }

    static boolean truth(Object value) {
        return switch (value) {
            case null -> false;
            case Boolean truth -> truth;
            case Long number -> number != 0;
            case Double number -> number != 0;
            case String text -> !text.isEmpty();
            case List<?> list -> !list.isEmpty();
            case Map<?, ?> map -> !map.isEmpty();
            case Undefined _ -> false;
            default -> true;
        };
    }

    /// The text that is written for a value.
    static String text(Object value) {
        return switch (value) {
            case String text -> text;
            case Undefined _ -> "";
            case null, default -> shown(value);
        };
    }

    /// The value as Python's `repr` shows it.
    static String shown(Object value) {
        return switch (value) {
            case null -> "None";
            case Boolean truth -> truth ? "True" : "False";
            case Long number -> number.toString();
            case Double number -> number(number);
            case String text -> quoted(text);
            case List<?> list -> {
                var out = new StringBuilder("[");
                for (Iterator<?> i = list.iterator(); i.hasNext();) {
                    out.append(shown(i.next()));
                    if (i.hasNext()) out.append(", ");
                    RenderBudget.checkSize(out.length());
                }
                yield out.append(']').toString();
            }
            case Map<?, ?> map -> {
                var out = new StringBuilder("{");
                map.forEach((key, entry) -> {
                    if (out.length() > 1) out.append(", ");
                    out.append(shown(key)).append(": ").append(shown(entry));
                    RenderBudget.checkSize(out.length());
                });
                yield out.append('}').toString();
            }
            case Undefined _ -> "Undefined";
            default -> throw new TemplateException(kind(value) + " has no text");
        };
    }

    private static String quoted(String text) {
        char quote = text.indexOf('\'') >= 0 && text.indexOf('"') < 0 ? '"' : '\'';
        var out = new StringBuilder().append(quote);
        text.codePoints().forEach(c -> {
            switch (c) {
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\\' -> out.append("\\\\");
                default -> {
                    if (c == quote) out.append('\\').append(quote);
                    else if (c < ' ' || c == 0x7f || c > 0x7f && c < 0xa1 || c == 0xad)
                        out.append(String.format("\\x%02x", c));
                    else out.appendCodePoint(c);
                }
            }
        });
        return out.append(quote).toString();
    }

    /// The shortest decimal number that is this one, as Python writes it.
    static String number(double value) {
        if (Double.isNaN(value)) return "nan";
        if (Double.isInfinite(value)) return value > 0 ? "inf" : "-inf";
        if (value == 0) return 1 / value < 0 ? "-0.0" : "0.0";
        var exact = new BigDecimal(Double.toString(value)).stripTrailingZeros();
        int exponent = exact.precision() - exact.scale() - 1;
        if (exponent >= -4 && exponent < 16) {
            String plain = exact.toPlainString();
            return plain.contains(".") ? plain : plain + ".0";
        }
        String digits = exact.unscaledValue().abs().toString();
        String fraction = digits.length() > 1 ? "." + digits.substring(1) : "";
        return (value < 0 ? "-" : "") + digits.charAt(0) + fraction + "e" + (exponent < 0 ? "-" : "+")
                + (Math.abs(exponent) < 10 ? "0" : "") + Math.abs(exponent);
    }

    private static Optional<Number> numeric(Object value) {
        return switch (value) {
            case Boolean truth -> Optional.of(truth ? 1L : 0L);
            case Long number -> Optional.of(number);
            case Double number -> Optional.of(number);
            case null, default -> Optional.empty();
        };
    }

    static boolean equal(Object a, Object b) {
        Optional<Number> left = numeric(a);
        Optional<Number> right = numeric(b);
        if (left.isPresent() && right.isPresent()) return compare(left.get(), right.get()) == 0;
        if (a instanceof Undefined && b instanceof Undefined) return true;
        if (a instanceof List<?> one && b instanceof List<?> other) {
            if (one.size() != other.size()) return false;
            for (int i = 0; i < one.size(); i++) if (!equal(one.get(i), other.get(i))) return false;
            return true;
        }
        if (a instanceof Map<?, ?> one && b instanceof Map<?, ?> other) {
            if (!one.keySet().equals(other.keySet())) return false;
            return one.keySet().stream().allMatch(key -> equal(one.get(key), other.get(key)));
        }
        return Objects.equals(a, b);
    }

    private static int compare(Number a, Number b) {
        return a instanceof Long one && b instanceof Long other ? Long.compare(one, other)
                : Double.compare(a.doubleValue() + 0.0, b.doubleValue() + 0.0);
    }

    /// The order of two values.
    static int compare(Object a, Object b) {
        Optional<Number> left = numeric(a);
        Optional<Number> right = numeric(b);
        if (left.isPresent() && right.isPresent()) return compare(left.get(), right.get());
        if (a instanceof String one && b instanceof String other) return codePoints(one, other);
        if (a instanceof List<?> one && b instanceof List<?> other) {
            for (int i = 0; i < Math.min(one.size(), other.size()); i++)
                if (!equal(one.get(i), other.get(i))) return compare(one.get(i), other.get(i));
            return Integer.compare(one.size(), other.size());
        }
        throw new TemplateException(kind(a) + " and " + kind(b) + " have no order");
    }

    private static int codePoints(String a, String b) {
        int n = 0;
        while (n < a.length() && n < b.length() && a.charAt(n) == b.charAt(n)) n++;
        if (n == a.length() || n == b.length()) return Integer.compare(a.length(), b.length());
        return Integer.compare(a.codePointAt(n), b.codePointAt(n));
    }

    /// Whether `container` has `value`.
    static boolean contains(Object container, Object value) {
        return switch (container) {
            case String text when value instanceof String part -> text.contains(part);
            case List<?> list -> list.stream().anyMatch(item -> equal(item, value));
            case Map<?, ?> map -> map.containsKey(value);
            case Undefined _ -> false;
            case null, default -> throw new TemplateException(kind(value) + " cannot be looked for in "
                    + kind(container));
        };
    }

    /// The items of a value in their order.
    static List<Object> items(Object value) {
        return switch (value) {
            case List<?> list -> Collections.unmodifiableList(list);
            case Map<?, ?> map -> new ArrayList<>(map.keySet());
            case String text -> PythonStrings.characters(text);
            case Undefined _ -> List.of();
            case null, default -> throw new TemplateException(kind(value) + " has no items");
        };
    }

    static long length(Object value) {
        return switch (value) {
            case String text -> PythonStrings.length(text);
            case List<?> list -> list.size();
            case Map<?, ?> map -> map.size();
            case Undefined _ -> 0;
            case null, default -> throw new TemplateException(kind(value) + " has no length");
        };
    }

    static long integer(Object value) {
        return switch (value) {
            case Long number -> number;
            case Boolean truth -> truth ? 1 : 0;
            case null, default -> throw new TemplateException(kind(value) + " is no integer");
        };
    }

    static String string(Object value) {
        if (value instanceof String text) return text;
        throw new TemplateException(kind(value) + " is no string");
    }

    /// The item of a list, string or object; [Undefined] if there is none.
    static Object item(Object of, Object key) {
        return switch (of) {
            case Map<?, ?> map -> map.containsKey(key) ? map.get(key) : new Undefined(text(key));
            case List<?> list when key instanceof Long || key instanceof Boolean -> {
                long at = integer(key) < 0 ? integer(key) + list.size() : integer(key);
                yield at >= 0 && at < list.size() ? list.get((int) at) : new Undefined(text(key));
            }
            case String text when key instanceof Long || key instanceof Boolean -> {
                long size = PythonStrings.length(text);
                long at = integer(key) < 0 ? integer(key) + size : integer(key);
                yield at >= 0 && at < size ? Character.toString(text.codePointAt(
                        text.offsetByCodePoints(0, (int) at))) : new Undefined(text(key));
            }
            case Undefined(var name) -> throw new TemplateException("'" + name + "' is not defined");
            case null, default -> new Undefined(text(key));
        };
    }

    /// A part of a list or string. Bounds may be null.
    static Object slice(Object of, Object from, Object to, Object step) {
        List<Object> all = items(of);
        if (of instanceof Map || of instanceof Undefined)
            throw new TemplateException(kind(of) + " cannot be sliced");
        long by = step == null ? 1 : integer(step);
        if (by == 0) throw new TemplateException("the step of a slice is 0");
        long n = all.size();
        long first = from == null ? (by > 0 ? 0 : n - 1) : bound(integer(from), n, by);
        long end = to == null ? (by > 0 ? n : -1) : bound(integer(to), n, by);
        var part = new ArrayList<Object>();
        for (long i = first; by > 0 ? i < end : i > end; i += by) part.add(all.get((int) i));
        if (!(of instanceof String)) return part;
        var text = new StringBuilder();
        part.forEach(text::append);
        return text.toString();
    }

    private static long bound(long given, long n, long by) {
        long at = given < 0 ? given + n : given;
        return by > 0 ? Math.clamp(at, 0, n) : Math.clamp(at, -1, n - 1);
    }

    // ---- arithmetic ----

    static Object binary(String operator, Object a, Object b) {
        if (operator.equals("~")) return text(a) + text(b);
        Optional<Number> left = numeric(a);
        Optional<Number> right = numeric(b);
        if (left.isPresent() && right.isPresent()) return calculate(operator, left.get(), right.get());
        if (operator.equals("+") && a instanceof String one && b instanceof String other) return one + other;
        if (operator.equals("+") && a instanceof List<?> one && b instanceof List<?> other) {
            var both = new ArrayList<Object>(one);
            both.addAll(other);
            return both;
        }
        if (operator.equals("*") && right.isPresent()) return repeat(a, integer(b));
        if (operator.equals("*") && left.isPresent()) return repeat(b, integer(a));
        throw new TemplateException(kind(a) + " " + operator + " " + kind(b) + " is not possible");
    }

    private static Object repeat(Object value, long times) {
        long count = Math.max(0, times);
        if (value instanceof String text) {
            RenderBudget.checkSize(text.isEmpty() ? 0 : Math.multiplyHigh(text.length(), count) != 0
                    ? Long.MAX_VALUE : text.length() * count);
            return text.repeat(text.isEmpty() ? 0 : (int) count);
        }
        if (!(value instanceof List<?> list))
            throw new TemplateException(kind(value) + " cannot be repeated");
        RenderBudget.checkSize(count);
        RenderBudget.checkSize(list.size() * count);
        var all = new ArrayList<Object>();
        for (long i = 0; i < count && !list.isEmpty(); i++) all.addAll(list);
        return all;
    }

    private static Object calculate(String operator, Number a, Number b) {
        try {
            return a instanceof Long one && b instanceof Long other ? integers(operator, one, other)
                    : doubles(operator, a.doubleValue(), b.doubleValue());
        } catch (ArithmeticException wrong) {
            throw new TemplateException(shown(a) + " " + operator + " " + shown(b) + ": "
                    + wrong.getMessage());
        }
    }

    private static Object integers(String operator, long a, long b) {
        return switch (operator) {
            case "+" -> Math.addExact(a, b);
            case "-" -> Math.subtractExact(a, b);
            case "*" -> Math.multiplyExact(a, b);
            case "//" -> Math.floorDiv(a, b);
            case "%" -> Math.floorMod(a, b);
            case "**" -> power(a, b);
            default -> doubles(operator, a, b);
        };
    }

    private static Object power(long a, long b) {
        if (b < 0 || b > 64) return doubles("**", a, b);
        long power = 1;
        for (long i = 0; i < b; i++) power = Math.multiplyExact(power, a);
        return power;
    }

    private static Object doubles(String operator, double a, double b) {
        if (b == 0 && (operator.equals("/") || operator.equals("//") || operator.equals("%")))
            throw new ArithmeticException("division by zero");
        return switch (operator) {
            case "+" -> a + b;
            case "-" -> a - b;
            case "*" -> a * b;
            case "/" -> a / b;
            case "//" -> Math.floor(a / b);
            case "%" -> a - b * Math.floor(a / b);
            default -> Math.pow(a, b);
        };
    }
}
