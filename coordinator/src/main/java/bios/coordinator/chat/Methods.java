package bios.coordinator.chat;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.IntPredicate;
import java.util.function.Predicate;

/// The methods of strings, lists and objects that change nothing.
final class Methods {
    private static final Set<String> CHANGING = Set.of("append", "extend", "insert", "remove", "pop", "clear",
            "update", "setdefault", "popitem", "sort", "reverse");

    private Methods() {}

    /// The method of this name; empty if the value has none.
    static Optional<Callable> of(Object value, String name) {
        boolean there = switch (value) {
            case String _ -> STRING.contains(name);
            case List<?> _ -> LIST.contains(name) || CHANGING.contains(name);
            case Map<?, ?> _ -> OBJECT.contains(name)
                    || CHANGING.contains(name) && !((Map<?, ?>) value).containsKey(name);
            case null, default -> false;
        };
        if (!there) return Optional.empty();
        return Optional.of((arguments, named) -> {
            if (CHANGING.contains(name)) throw new TemplateException("the method " + name
                    + " changes a value; templates cannot do that");
            var given = new ArgumentReader(name, arguments, named);
            Object result = switch (value) {
                case String text -> string(text, name, given);
                case List<?> list -> list(list, name, given);
                case Map<?, ?> map -> object(map, name, given);
                case null, default -> throw new IllegalStateException(name);
            };
            given.requireAllRead();
            return result;
        });
    }

    private static final Set<String> STRING = Set.of("strip", "lstrip", "rstrip", "split", "rsplit",
            "splitlines", "startswith", "endswith", "replace", "upper", "lower", "title", "capitalize",
            "find", "rfind", "index", "count", "join", "isdigit", "isalpha", "isalnum", "isspace", "isupper",
            "islower", "removeprefix", "removesuffix", "partition", "rpartition", "casefold", "format");
    private static final Set<String> LIST = Set.of("index", "count", "copy");
    private static final Set<String> OBJECT = Set.of("get", "items", "keys", "values", "copy");

    private static Object string(String text, String name, ArgumentReader given) {
        return switch (name) {
            case "strip" -> PythonStrings.strip(text, given.stringOrNull("chars"), true, true);
            case "lstrip" -> PythonStrings.strip(text, given.stringOrNull("chars"), true, false);
            case "rstrip" -> PythonStrings.strip(text, given.stringOrNull("chars"), false, true);
            case "split", "rsplit" -> PythonStrings.split(text, given.stringOrNull("sep"),
                    given.integer("maxsplit", -1), name.equals("rsplit"));
            case "splitlines" -> PythonStrings.lines(text, Values.truth(given.next("keepends", false)));
            case "startswith" -> any(given.next("prefix"), text::startsWith);
            case "endswith" -> any(given.next("suffix"), text::endsWith);
            case "replace" -> PythonStrings.replace(text, given.string("old"), given.string("new"),
                    given.integer("count", -1));
            case "upper" -> text.toUpperCase(Locale.ROOT);
            case "lower", "casefold" -> text.toLowerCase(Locale.ROOT);
            case "title" -> PythonStrings.titled(text);
            case "capitalize" -> PythonStrings.capitalized(text);
            case "join" -> join(text, Values.items(given.next("iterable")));
            case "removeprefix" -> {
                String prefix = given.string("prefix");
                yield text.startsWith(prefix) ? text.substring(prefix.length()) : text;
            }
            case "removesuffix" -> {
                String suffix = given.string("suffix");
                yield text.endsWith(suffix) ? text.substring(0, text.length() - suffix.length()) : text;
            }
            case "partition", "rpartition" -> partition(text, given.string("sep"), name.equals("rpartition"));
            case "find", "rfind", "index", "count" -> search(text, name, given.string("sub"));
            default -> property(text, name);
        };
    }

    private static boolean any(Object affixes, Predicate<String> has) {
        if (affixes instanceof List<?> several)
            return several.stream().anyMatch(affix -> has.test(Values.string(affix)));
        return has.test(Values.string(affixes));
    }

    /// The items with the separator between them.
    static String join(String separator, List<Object> items) {
        long size = (long) separator.length() * items.size();
        for (Object item : items) size += Values.string(item).length();
        RenderBudget.checkSize(size);
        return String.join(separator, items.stream().map(Values::string).toList());
    }

    private static List<Object> partition(String text, String separator, boolean last) {
        int at = last ? text.lastIndexOf(separator) : text.indexOf(separator);
        if (at < 0) return last ? List.of("", "", text) : List.of(text, "", "");
        return List.of(text.substring(0, at), separator, text.substring(at + separator.length()));
    }

    private static Object search(String text, String name, String part) {
        if (name.equals("count")) return part.isEmpty() ? PythonStrings.length(text) + 1
                : PythonStrings.split(text, part, -1, false).size() - 1L;
        int at = name.equals("rfind") ? text.lastIndexOf(part) : text.indexOf(part);
        if (at < 0 && name.equals("index")) throw new TemplateException("index: the text is not there");
        return at < 0 ? -1L : (long) text.codePointCount(0, at);
    }

    private static Object property(String text, String name) {
        IntPredicate cased = c -> Character.isUpperCase(c) || Character.isLowerCase(c);
        return switch (name) {
            case "isdigit" -> all(text, Character::isDigit);
            case "isalpha" -> all(text, Character::isLetter);
            case "isalnum" -> all(text, Character::isLetterOrDigit);
            case "isspace" -> all(text, PythonStrings::isSpace);
            case "isupper" -> text.codePoints().anyMatch(cased)
                    && text.codePoints().noneMatch(Character::isLowerCase);
            case "islower" -> text.codePoints().anyMatch(cased)
                    && text.codePoints().noneMatch(Character::isUpperCase);
            default -> throw new TemplateException("the method " + name + " of strings is not supported");
        };
    }

    private static boolean all(String text, IntPredicate is) {
        return !text.isEmpty() && text.codePoints().allMatch(is);
    }

    private static Object list(List<?> list, String name, ArgumentReader given) {
        return switch (name) {
            case "copy" -> Collections.unmodifiableList(list);
            case "count" -> {
                Object wanted = given.next("value");
                yield list.stream().filter(item -> Values.equal(item, wanted)).count();
            }
            default -> {
                Object wanted = given.next("value");
                for (int i = 0; i < list.size(); i++) if (Values.equal(list.get(i), wanted)) yield (long) i;
                throw new TemplateException("index: the value is not in the list");
            }
        };
    }

    private static Object object(Map<?, ?> map, String name, ArgumentReader given) {
        return switch (name) {
            case "get" -> {
                Object key = given.next("key");
                Object otherwise = given.next("default", null);
                yield map.containsKey(key) ? map.get(key) : otherwise;
            }
            case "keys" -> new ArrayList<Object>(map.keySet());
            case "values" -> new ArrayList<Object>(map.values());
            case "items" -> pairs(map);
            default -> Collections.unmodifiableMap(map);
        };
    }

    /// The entries as lists of key and value.
    static List<Object> pairs(Map<?, ?> map) {
        var pairs = new ArrayList<Object>();
        map.forEach((key, value) -> {
            var pair = new ArrayList<Object>();
            pair.add(key);
            pair.add(value);
            pairs.add(pair);
        });
        return pairs;
    }
}
