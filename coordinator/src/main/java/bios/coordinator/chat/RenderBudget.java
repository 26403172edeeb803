package bios.coordinator.chat;

import java.util.List;
import java.util.Map;

/// Bounds the work of one rendering: steps, the sizes of values, and the depth of calls.
final class RenderBudget {
    /// Most characters of a text, and most entries of a list.
    static final int MAX_SIZE = 1 << 22;
    private static final long MAX_WORK = 20_000_000;
    private static final int MAX_DEPTH = 100;

    private long work;
    private int depth;

    /// Pays for work.
    void pay(long units) {
        work += units;
        if (work > MAX_WORK) throw new TemplateException("it does not end within " + MAX_WORK + " steps");
    }

    /// Pays for a value that was made or read, and checks its size.
    Object pay(Object value) {
        long size = size(value);
        checkSize(size);
        pay(1 + size / 4);
        return value;
    }

    /// Refuses a value before it is made.
    static void checkSize(long size) {
        if (size > MAX_SIZE)
            throw new TemplateException("it makes a value of " + size + " characters or entries; at most "
                    + MAX_SIZE);
    }

    private static long size(Object value) {
        return switch (value) {
            case String text -> text.length();
            case List<?> list -> list.size();
            case Map<?, ?> map -> map.size();
            case null, default -> 0;
        };
    }

    /// A call begins.
    void enter() {
        if (++depth > MAX_DEPTH) throw new TemplateException("its macros call each other more than "
                + MAX_DEPTH + " deep");
    }

    /// A call ends.
    void leave() {
        depth--;
    }
}
