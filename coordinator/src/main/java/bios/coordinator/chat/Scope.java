package bios.coordinator.chat;

import java.util.HashMap;
import java.util.Map;

/// The variables of a body; those of the bodies around it can be read.
final class Scope {
    private final Scope outer;
    private final Map<String, Object> values = new HashMap<>();

    /// @param outer null for the outermost
    Scope(Scope outer) {
        this.outer = outer;
    }

    void set(String name, Object value) {
        values.put(name, value);
    }

    Object get(String name) {
        for (Scope scope = this; scope != null; scope = scope.outer)
            if (scope.values.containsKey(name)) return scope.values.get(name);
        return new Undefined(name);
    }
}
