package bios.coordinator.chat;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/// The arguments of a call of a filter or method, which reads them in their order or by their names; those
/// that are not read are refused.
final class ArgumentReader {
    private final String function;
    private final List<Object> arguments;
    private final Map<String, Object> named;
    private int read;

    ArgumentReader(String function, List<Object> arguments, Map<String, Object> named) {
        this.function = function;
        this.arguments = arguments;
        this.named = new LinkedHashMap<>(named);
    }

    boolean has(String name) {
        return read < arguments.size() || named.containsKey(name);
    }

    /// The next argument, which may be given by this name; `otherwise` if it is not given.
    Object next(String name, Object otherwise) {
        if (read < arguments.size()) return arguments.get(read++);
        return named.containsKey(name) ? named.remove(name) : otherwise;
    }

    /// The next argument, which must be given.
    Object next(String name) {
        if (!has(name)) throw new TemplateException(function + ": the argument " + name + " is missing");
        return next(name, null);
    }

    String string(String name) {
        return Values.string(next(name));
    }

    /// A string, or null.
    String stringOrNull(String name) {
        Object value = next(name, null);
        return value == null ? null : Values.string(value);
    }

    long integer(String name, long otherwise) {
        return Values.integer(next(name, otherwise));
    }

    /// The arguments that are left.
    List<Object> rest() {
        List<Object> rest = arguments.subList(read, arguments.size());
        read = arguments.size();
        return rest;
    }

    /// The arguments by name that are left.
    Map<String, Object> named() {
        var all = new LinkedHashMap<>(named);
        named.clear();
        return all;
    }

    void requireAllRead() {
        if (read < arguments.size()) throw new TemplateException(function + ": too many arguments");
        if (!named.isEmpty()) throw new TemplateException(function + ": the argument "
                + named.keySet().iterator().next() + " is not known");
    }
}
