package bios.coordinator.chat;

import java.util.List;

/// The variable `loop` of a loop.
///
/// @param depth how many loops are around it and it
record Loop(List<Object> items, int index, int depth) implements Attributes {
    @Override public Object attribute(String name) {
        return switch (name) {
            case "index" -> index + 1L;
            case "index0" -> (long) index;
            case "revindex" -> (long) items.size() - index;
            case "revindex0" -> items.size() - index - 1L;
            case "first" -> index == 0;
            case "last" -> index == items.size() - 1;
            case "length" -> (long) items.size();
            case "depth" -> (long) depth;
            case "depth0" -> depth - 1L;
            case "previtem" -> index == 0 ? new Undefined("previtem") : items.get(index - 1);
            case "nextitem" -> index == items.size() - 1 ? new Undefined("nextitem") : items.get(index + 1);
            case "cycle" -> (Callable) (arguments, _) -> {
                if (arguments.isEmpty()) throw new TemplateException("cycle: no items are given");
                return arguments.get(index % arguments.size());
            };
            default -> throw new TemplateException("loop." + name + " is not supported");
        };
    }
}
