package bios.coordinator.chat;

import bios.coordinator.chat.TemplateLexer.Kind;
import bios.coordinator.chat.TemplateLexer.Part;
import bios.coordinator.chat.TemplateLexer.Token;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/// Parses the statements of a template.
final class TemplateParser {
    private static final int MAX_DEPTH = 100;
    private static final Set<String> REFUSED = Set.of("include", "import", "from", "extends", "block", "call",
            "filter", "autoescape", "do", "trans", "debug");

    private final List<Part> parts;
    private int at;
    private int depth;

    TemplateParser(List<Part> parts) {
        this.parts = parts;
    }

    List<Statement> template() {
        List<Statement> all = body(Set.of());
        if (at < parts.size()) throw wrong((Part.Tag) parts.get(at), "nothing is open that it could end");
        return all;
    }

    private static TemplateException wrong(Part.Tag tag, String message) {
        String name = tag.tokens().isEmpty() ? "" : tag.tokens().getFirst().text();
        return new TemplateException("line " + tag.line() + ": '" + name + "': " + message);
    }

    /// The statements up to a tag of one of these names, which is not read.
    private List<Statement> body(Set<String> ends) {
        if (++depth > MAX_DEPTH) throw new TemplateException("it is nested more than " + MAX_DEPTH + " deep");
        var body = new ArrayList<Statement>();
        while (at < parts.size()) {
            switch (parts.get(at)) {
                case Part.Text(var text) -> {
                    body.add(new Statement.Text(text));
                    at++;
                }
                case Part.Tag tag when tag.output() -> {
                    var expression = new ExpressionParser(tag.tokens(), tag.line());
                    body.add(new Statement.Output(expression.tuple()));
                    expression.end();
                    at++;
                }
                case Part.Tag tag -> {
                    String name = name(tag);
                    if (ends.contains(name) || name.startsWith("end") || name.equals("else")
                            || name.equals("elif")) {
                        depth--;
                        return body;
                    }
                    at++;
                    body.add(statement(tag, name));
                }
            }
        }
        depth--;
        return body;
    }

    private static String name(Part.Tag tag) {
        if (tag.tokens().isEmpty() || tag.tokens().getFirst().kind() != Kind.NAME)
            throw new TemplateException("line " + tag.line() + ": a statement has no name");
        return tag.tokens().getFirst().text();
    }

    private Statement statement(Part.Tag tag, String name) {
        List<Token> rest = tag.tokens().subList(1, tag.tokens().size());
        var expression = new ExpressionParser(rest, tag.line());
        Statement statement = switch (name) {
            case "if" -> branches(tag, expression);
            case "for" -> loop(tag, expression);
            case "set" -> assign(tag, expression);
            case "macro" -> macro(tag, expression);
            case "with" -> with(tag, expression);
            case "generation" -> new Statement.Generation(body(tag, "endgeneration"));
            case "break" -> new Statement.Break();
            case "continue" -> new Statement.Continue();
            default -> throw wrong(tag, REFUSED.contains(name) ? "is not supported in chat templates"
                    : "is not known");
        };
        expression.end();
        return statement;
    }

    /// The statements up to the tag `end`, which is read.
    private List<Statement> body(Part.Tag tag, String end) {
        List<Statement> body = body(Set.of(end));
        close(tag, end);
        return body;
    }

    private void close(Part.Tag tag, String end) {
        if (at == parts.size() || !name((Part.Tag) parts.get(at)).equals(end))
            throw wrong(tag, "has no " + end);
        at++;
    }

    private Statement branches(Part.Tag tag, ExpressionParser first) {
        var branches = new ArrayList<Statement.Branch>();
        Expression condition = first.tuple();
        first.end();
        while (true) {
            branches.add(new Statement.Branch(condition, body(Set.of("elif", "else", "endif"))));
            if (at == parts.size()) throw wrong(tag, "has no endif");
            Part.Tag next = (Part.Tag) parts.get(at);
            if (!name(next).equals("elif")) break;
            at++;
            var parser = new ExpressionParser(next.tokens().subList(1, next.tokens().size()), next.line());
            condition = parser.tuple();
            parser.end();
        }
        return new Statement.If(branches, otherwise(tag, "endif"));
    }

    private List<Statement> otherwise(Part.Tag tag, String end) {
        List<Statement> otherwise = List.of();
        if (at < parts.size() && name((Part.Tag) parts.get(at)).equals("else")) {
            at++;
            otherwise = body(Set.of(end));
        }
        close(tag, end);
        return otherwise;
    }

    private Statement loop(Part.Tag tag, ExpressionParser head) {
        List<String> targets = head.targets();
        head.expectName("in");
        Expression items = head.withoutCondition();
        Optional<Expression> filter = head.acceptName("if") ? Optional.of(head.expression())
                : Optional.empty();
        head.end();
        List<Statement> body = body(Set.of("else", "endfor"));
        return new Statement.For(targets, items, filter, body, otherwise(tag, "endfor"));
    }

    private Statement assign(Part.Tag tag, ExpressionParser head) {
        List<String> targets = head.targets();
        if (targets.size() == 1 && head.accept(".")) {
            String attribute = head.name();
            head.expect("=");
            return new Statement.AssignAttribute(targets.getFirst(), attribute, head.tuple());
        }
        if (head.accept("=")) return new Statement.Assign(targets, head.tuple());
        head.end();
        if (targets.size() > 1) throw wrong(tag, "has no value");
        return new Statement.AssignText(targets.getFirst(), body(tag, "endset"));
    }

    private Statement macro(Part.Tag tag, ExpressionParser head) {
        String name = head.name();
        var parameters = new ArrayList<Statement.Parameter>();
        head.expect("(");
        while (!head.accept(")")) {
            if (!parameters.isEmpty()) head.expect(",");
            String parameter = head.name();
            parameters.add(new Statement.Parameter(parameter, head.accept("=")
                    ? Optional.of(head.expression()) : Optional.empty()));
        }
        head.end();
        return new Statement.Macro(name, parameters, body(tag, "endmacro"));
    }

    private Statement with(Part.Tag tag, ExpressionParser head) {
        var assignments = new ArrayList<Statement.Assign>();
        while (!head.atEnd()) {
            if (!assignments.isEmpty()) head.expect(",");
            String name = head.name();
            head.expect("=");
            assignments.add(new Statement.Assign(List.of(name), head.expression()));
        }
        return new Statement.With(assignments, body(tag, "endwith"));
    }
}
