package bios.coordinator.chat;

import java.util.List;
import java.util.Map;

/// A function of a template: a macro, a method of a value, or one that every template has.
@FunctionalInterface
interface Callable {
    Object call(List<Object> arguments, Map<String, Object> named);
}
