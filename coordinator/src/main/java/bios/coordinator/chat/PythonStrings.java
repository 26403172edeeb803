package bios.coordinator.chat;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/// Strings as Python treats them: of code points, with its idea of white space.
final class PythonStrings {
    private PythonStrings() {}

    static boolean isSpace(int c) {
        return Character.isWhitespace(c) || Character.isSpaceChar(c) || c == 0x85;
    }

    /// @param characters what is removed; null: white space
    static String strip(String text, String characters, boolean left, boolean right) {
        int from = 0;
        int to = text.length();
        while (left && from < to && strips(text.codePointAt(from), characters))
            from += Character.charCount(text.codePointAt(from));
        while (right && to > from && strips(text.codePointBefore(to), characters))
            to -= Character.charCount(text.codePointBefore(to));
        return text.substring(from, to);
    }

    private static boolean strips(int c, String characters) {
        return characters == null ? isSpace(c) : characters.indexOf(c) >= 0;
    }

    static long length(String text) {
        return text.codePointCount(0, text.length());
    }

    /// The characters, each as a string.
    static List<Object> characters(String text) {
        var characters = new ArrayList<Object>();
        text.codePoints().forEach(c -> characters.add(Character.toString(c)));
        return characters;
    }

    static String capitalized(String text) {
        if (text.isEmpty()) return text;
        int first = Character.charCount(text.codePointAt(0));
        return text.substring(0, first).toUpperCase(Locale.ROOT)
                + text.substring(first).toLowerCase(Locale.ROOT);
    }

    /// Each word capitalized, as the method of strings does it.
    static String titled(String text) {
        var out = new StringBuilder();
        boolean inWord = false;
        for (int c : text.codePoints().toArray()) {
            String one = Character.toString(c);
            out.append(inWord ? one.toLowerCase(Locale.ROOT) : one.toUpperCase(Locale.ROOT));
            inWord = Character.isLetter(c);
        }
        return out.toString();
    }

    /// @param separator null: white space
    /// @param most cuts; negative: all
    /// @param fromRight whether the last cuts are made
    static List<Object> split(String text, String separator, long most, boolean fromRight) {
        if (separator == null) return words(text, most, fromRight);
        if (separator.isEmpty()) throw new TemplateException("split: the separator is empty");
        var parts = new ArrayList<Object>();
        String rest = text;
        for (long cuts = most; cuts != 0; cuts--) {
            int at = fromRight ? rest.lastIndexOf(separator) : rest.indexOf(separator);
            if (at < 0) break;
            String before = rest.substring(0, at);
            String after = rest.substring(at + separator.length());
            if (fromRight) parts.addFirst(after);
            else parts.add(before);
            rest = fromRight ? before : after;
        }
        if (fromRight) parts.addFirst(rest);
        else parts.add(rest);
        return parts;
    }

    private static List<Object> words(String text, long most, boolean fromRight) {
        var parts = new ArrayList<Object>();
        String rest = strip(text, null, !fromRight, fromRight);
        for (long cuts = most; cuts != 0 && !rest.isEmpty(); cuts--) {
            int from = fromRight ? rest.length() : 0;
            while (fromRight && from > 0 && !isSpace(rest.charAt(from - 1))) from--;
            while (!fromRight && from < rest.length() && !isSpace(rest.charAt(from))) from++;
            if (fromRight ? from == 0 : from == rest.length()) break;
            if (fromRight) parts.addFirst(rest.substring(from));
            else parts.add(rest.substring(0, from));
            rest = fromRight ? strip(rest.substring(0, from), null, false, true)
                    : strip(rest.substring(from), null, true, false);
        }
        if (rest.isEmpty()) return parts;
        if (fromRight) parts.addFirst(rest);
        else parts.add(rest);
        return parts;
    }

    static List<Object> lines(String text, boolean keepEnds) {
        var lines = new ArrayList<Object>();
        int from = 0;
        while (from < text.length()) {
            int end = from;
            while (end < text.length() && text.charAt(end) != '\n' && text.charAt(end) != '\r') end++;
            int next = end < text.length() ? end + 1 : end;
            if (text.startsWith("\r\n", end)) next++;
            lines.add(text.substring(from, keepEnds ? next : end));
            from = next;
        }
        return lines;
    }

    /// @param most replacements; negative: all
    static String replace(String text, String old, String with, long most) {
        long count = 0;
        if (old.isEmpty()) count = text.length() + 1L;
        else for (int at = text.indexOf(old); at >= 0; at = text.indexOf(old, at + old.length())) count++;
        if (most >= 0) count = Math.min(count, most);
        RenderBudget.checkSize(text.length() + count * with.length());
        if (most < 0) return text.replace(old, with);
        var out = new StringBuilder();
        int from = 0;
        for (; count > 0; count--) {
            int at = text.indexOf(old, from);
            if (at < 0 || old.isEmpty() && at == text.length()) break;
            out.append(text, from, at).append(with);
            if (old.isEmpty()) out.append(text.charAt(at));
            from = at + Math.max(1, old.length());
        }
        return out.append(text.substring(Math.min(from, text.length()))).toString();
    }
}
