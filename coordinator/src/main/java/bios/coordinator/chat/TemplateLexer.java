package bios.coordinator.chat;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// Cuts a template into text and tags, and tags into tokens. White space is handled as with Jinja's settings
/// `trim_blocks` and `lstrip_blocks`: the line end after a block tag and the indentation before it are no
/// text.
final class TemplateLexer {
    private static final Pattern NUMBER = Pattern.compile("\\d[\\d_]*(\\.\\d[\\d_]*)?([eE][+-]?\\d+)?");
    private static final Pattern NAME = Pattern.compile("[\\p{L}_][\\p{L}\\p{N}_]*");
    private static final Pattern END_RAW = Pattern.compile("\\{%([-+]?)\\s*endraw\\s*([-+]?)%}");
    private static final List<String> OPERATORS = List.of("**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
            "/", "%", "~", "<", ">", "=", ".", ",", ":", "|", "(", ")", "[", "]", "{", "}");

    private final String source;
    private final List<Part> parts = new ArrayList<>();
    private int at;
    private boolean lineStarts = true;
    /// The line of the character `counted`.
    private int line = 1;
    private int counted;

    /// What a template consists of.
    sealed interface Part {
        record Text(String text) implements Part {}

        /// @param output whether its value is written: `{{ }}`; else it is a statement: `{% %}`
        record Tag(boolean output, List<Token> tokens, int line) implements Part {}
    }

    /// The kinds of tokens.
    enum Kind { NAME, STRING, INTEGER, FLOAT, OPERATOR }

    record Token(Kind kind, String text, int line) {
        boolean is(Kind wanted, String value) {
            return kind == wanted && text.equals(value);
        }
    }

    private TemplateLexer(String source) {
        String unix = source.replace("\r\n", "\n").replace('\r', '\n');
        this.source = unix.endsWith("\n") ? unix.substring(0, unix.length() - 1) : unix;
    }

    /// The parts of a template.
    static List<Part> parts(String source) {
        var lexer = new TemplateLexer(source);
        while (lexer.at < lexer.source.length()) lexer.next();
        return lexer.parts;
    }

    private void next() {
        int open = source.indexOf('{', at);
        while (open >= 0 && (open + 1 == source.length() || "{%#".indexOf(source.charAt(open + 1)) < 0))
            open = source.indexOf('{', open + 1);
        if (open < 0) {
            text(source.substring(at), '+', false);
            at = source.length();
            return;
        }
        char kind = source.charAt(open + 1);
        char sign = open + 2 < source.length() ? source.charAt(open + 2) : ' ';
        text(source.substring(at, open), sign, kind != '{');
        at = open + (sign == '-' || sign == '+' ? 3 : 2);
        switch (kind) {
            case '#' -> comment(open);
            case '%' -> statement();
            default -> parts.add(tag("}}", true));
        }
    }

    private int line() {
        for (; counted < Math.min(at, source.length()); counted++)
            if (source.charAt(counted) == '\n') line++;
        return line;
    }

    private TemplateException wrong(String message) {
        return new TemplateException("line " + line() + ": " + message);
    }

    /// Adds the text before a tag.
    private void text(String text, char sign, boolean block) {
        String left = text;
        if (sign == '-') left = PythonStrings.strip(text, null, false, true);
        else if (sign != '+' && block) {
            int start = text.lastIndexOf('\n') + 1;
            boolean blank = PythonStrings.strip(text.substring(start), null, true, false).isEmpty();
            if ((start > 0 || lineStarts) && blank) left = text.substring(0, start);
        }
        if (!left.isEmpty()) parts.add(new Part.Text(left));
    }

    private void comment(int open) {
        int end = source.indexOf("#}", Math.max(at, open + 2));
        if (end < 0) throw wrong("a comment does not end");
        char sign = source.charAt(end - 1);
        at = end + 2;
        afterTag(sign, true);
    }

    /// Reads over the white space that belongs to the tag before it.
    private void afterTag(char sign, boolean block) {
        int from = at;
        if (sign == '-') while (at < source.length() && PythonStrings.isSpace(source.charAt(at))) at++;
        else if (block && sign != '+' && at < source.length() && source.charAt(at) == '\n') at++;
        lineStarts = at > from && source.charAt(at - 1) == '\n';
    }

    private void statement() {
        Part.Tag tag = tag("%}", false);
        boolean raw = tag.tokens().size() == 1 && tag.tokens().getFirst().is(Kind.NAME, "raw");
        if (!raw) {
            parts.add(tag);
            return;
        }
        Matcher end = END_RAW.matcher(source);
        if (!end.find(at)) throw wrong("raw does not end");
        String text = source.substring(at, end.start());
        text(text, end.group(1).isEmpty() ? ' ' : end.group(1).charAt(0), true);
        at = end.end();
        afterTag(end.group(2).isEmpty() ? ' ' : end.group(2).charAt(0), true);
    }

    private Part.Tag tag(String end, boolean output) {
        int begins = line();
        var tokens = new ArrayList<Token>();
        Deque<String> brackets = new ArrayDeque<>();
        while (true) {
            while (at < source.length() && PythonStrings.isSpace(source.charAt(at))) at++;
            if (at >= source.length()) throw wrong("a tag does not end");
            if (brackets.isEmpty()) {
                char sign = source.charAt(at);
                boolean signed = sign == '-' || sign == '+' && !output;
                int skipped = signed && source.startsWith(end, at + 1) ? 1 : 0;
                if (source.startsWith(end, at + skipped)) {
                    at += skipped + 2;
                    boolean raw = tokens.size() == 1 && tokens.getFirst().is(Kind.NAME, "raw");
                    afterTag(skipped == 1 ? sign : ' ', !output && !raw);
                    return new Part.Tag(output, tokens, begins);
                }
            }
            Token token = token();
            if (token.kind() == Kind.OPERATOR) balance(token.text(), brackets);
            tokens.add(token);
        }
    }

    private void balance(String operator, Deque<String> brackets) {
        switch (operator) {
            case "(" -> brackets.push(")");
            case "[" -> brackets.push("]");
            case "{" -> brackets.push("}");
            case ")", "]", "}" -> {
                if (brackets.isEmpty() || !brackets.pop().equals(operator))
                    throw wrong("'" + operator + "' closes nothing");
            }
            default -> { }
        }
    }

    private Token token() {
        int here = line();
        char first = source.charAt(at);
        if (first == '\'' || first == '"') return new Token(Kind.STRING, string(first), here);
        Matcher number = NUMBER.matcher(source).region(at, source.length());
        if (number.lookingAt()) {
            at = number.end();
            boolean whole = number.group(1) == null && number.group(2) == null;
            return new Token(whole ? Kind.INTEGER : Kind.FLOAT, number.group().replace("_", ""), here);
        }
        Matcher name = NAME.matcher(source).region(at, source.length());
        if (name.lookingAt()) {
            at = name.end();
            return new Token(Kind.NAME, name.group(), here);
        }
        for (String operator : OPERATORS)
            if (source.startsWith(operator, at)) {
                at += operator.length();
                return new Token(Kind.OPERATOR, operator, here);
            }
        throw wrong("'" + first + "' is not expected");
    }

    private String string(char quote) {
        var text = new StringBuilder();
        for (at++; at < source.length() && source.charAt(at) != quote; at++) {
            char c = source.charAt(at);
            if (c == '\\' && at + 1 < source.length()) escape(text);
            else text.append(c);
        }
        if (at >= source.length()) throw wrong("a string does not end");
        at++;
        return text.toString();
    }

    private void escape(StringBuilder text) {
        char c = source.charAt(++at);
        switch (c) {
            case 'n' -> text.append('\n');
            case 't' -> text.append('\t');
            case 'r' -> text.append('\r');
            case 'b' -> text.append('\b');
            case 'f' -> text.append('\f');
            case '0' -> text.append('\0');
            case '\\', '\'', '"' -> text.append(c);
            case '\n' -> { }
            case 'x' -> hex(text, 2);
            case 'u' -> hex(text, 4);
            case 'U' -> hex(text, 8);
            default -> text.append('\\').append(c);
        }
    }

    private void hex(StringBuilder text, int digits) {
        int from = at + 1;
        String hex = source.substring(from, Math.min(source.length(), from + digits));
        if (!hex.matches("[0-9a-fA-F]{" + digits + "}"))
            throw wrong("'" + hex + "' is no code of a character");
        long code = Long.parseLong(hex, 16);
        if (code > Character.MAX_CODE_POINT) throw wrong("'" + hex + "' is no code of a character");
        text.appendCodePoint((int) code);
        at += digits;
    }
}
