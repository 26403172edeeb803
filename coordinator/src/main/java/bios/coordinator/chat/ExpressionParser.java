package bios.coordinator.chat;

import bios.coordinator.chat.TemplateLexer.Kind;
import bios.coordinator.chat.TemplateLexer.Token;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/// Parses the expressions of one tag, with the precedence of Jinja.
final class ExpressionParser {
    private static final int MAX_DEPTH = 100;
    private static final Set<String> COMPARISONS = Set.of("==", "!=", "<", "<=", ">", ">=");
    /// Names that end an expression and begin no argument of a test.
    private static final Set<String> WORDS = Set.of("else", "or", "and", "if", "in", "is", "not");

    private final List<Token> tokens;
    private final int line;
    private int at;
    private int depth;

    ExpressionParser(List<Token> tokens, int line) {
        this.tokens = tokens;
        this.line = line;
    }

    boolean atEnd() {
        return at == tokens.size();
    }

    /// All tokens must be read.
    void end() {
        if (!atEnd()) throw wrong("'" + tokens.get(at).text() + "' is not expected");
    }

    private TemplateException wrong(String message) {
        return new TemplateException("line " + (atEnd() ? line : tokens.get(at).line()) + ": " + message);
    }

    private boolean looksAt(Kind kind, String text) {
        return !atEnd() && tokens.get(at).is(kind, text);
    }

    boolean accept(String operator) {
        boolean there = looksAt(Kind.OPERATOR, operator);
        if (there) at++;
        return there;
    }

    void expect(String operator) {
        if (!accept(operator)) throw wrong("'" + operator + "' is expected"
                + (atEnd() ? "" : " before '" + tokens.get(at).text() + "'"));
    }

    boolean acceptName(String name) {
        boolean there = looksAt(Kind.NAME, name);
        if (there) at++;
        return there;
    }

    void expectName(String name) {
        if (!acceptName(name)) throw wrong("'" + name + "' is expected");
    }

    String name() {
        if (atEnd() || tokens.get(at).kind() != Kind.NAME) throw wrong("a name is expected");
        return tokens.get(at++).text();
    }

    /// Names that a value is assigned to.
    List<String> targets() {
        boolean bracket = accept("(");
        var names = new ArrayList<>(List.of(name()));
        while (accept(",")) names.add(name());
        if (bracket) expect(")");
        return names;
    }

    /// An expression, or several with commas as one list.
    Expression tuple() {
        Expression first = expression();
        if (!looksAt(Kind.OPERATOR, ",")) return first;
        var items = new ArrayList<>(List.of(first));
        while (accept(",") && !atEnd() && !looksAt(Kind.OPERATOR, ")")) items.add(expression());
        return new Expression.ListOf(items);
    }

    Expression expression() {
        if (++depth > MAX_DEPTH) throw wrong("it is nested more than " + MAX_DEPTH + " deep");
        Expression value = or();
        while (acceptName("if")) {
            Expression test = or();
            value = new Expression.Conditional(test, value, acceptName("else")
                    ? Optional.of(expression()) : Optional.empty());
        }
        depth--;
        return value;
    }

    /// An expression that does not take an `if` after it as its own.
    Expression withoutCondition() {
        Expression first = or();
        if (!looksAt(Kind.OPERATOR, ",")) return first;
        var items = new ArrayList<>(List.of(first));
        while (accept(",")) items.add(or());
        return new Expression.ListOf(items);
    }

    private Expression or() {
        Expression left = and();
        while (acceptName("or")) left = new Expression.Or(left, and());
        return left;
    }

    private Expression and() {
        Expression left = not();
        while (acceptName("and")) left = new Expression.And(left, not());
        return left;
    }

    private Expression not() {
        int count = 0;
        while (acceptName("not")) count++;
        Expression value = comparison();
        for (; count > 0; count--) value = new Expression.Not(value);
        return value;
    }

    private Expression comparison() {
        Expression first = sum();
        var rest = new ArrayList<Expression.Comparand>();
        while (!atEnd()) {
            Token token = tokens.get(at);
            if (token.kind() == Kind.OPERATOR && COMPARISONS.contains(token.text())) {
                at++;
                rest.add(new Expression.Comparand(token.text(), sum()));
            } else if (acceptName("in")) rest.add(new Expression.Comparand("in", sum()));
            else if (looksAt(Kind.NAME, "not") && at + 1 < tokens.size()
                    && tokens.get(at + 1).is(Kind.NAME, "in")) {
                at += 2;
                rest.add(new Expression.Comparand("not in", sum()));
            } else break;
        }
        return rest.isEmpty() ? first : new Expression.Comparison(first, rest);
    }

    private Optional<String> acceptOneOf(String... operators) {
        for (String operator : operators) if (accept(operator)) return Optional.of(operator);
        return Optional.empty();
    }

    private Expression sum() {
        Expression left = concatenation();
        Optional<String> operator;
        while ((operator = acceptOneOf("+", "-")).isPresent())
            left = new Expression.Binary(operator.get(), left, concatenation());
        return left;
    }

    private Expression concatenation() {
        Expression left = product();
        while (accept("~")) left = new Expression.Binary("~", left, product());
        return left;
    }

    private Expression product() {
        Expression left = power();
        Optional<String> operator;
        while ((operator = acceptOneOf("*", "//", "/", "%")).isPresent())
            left = new Expression.Binary(operator.get(), left, power());
        return left;
    }

    private Expression power() {
        Expression left = unary(true);
        while (accept("**")) left = new Expression.Binary("**", left, unary(true));
        return left;
    }

    private Expression unary(boolean withFilters) {
        if (++depth > MAX_DEPTH) throw wrong("it is nested more than " + MAX_DEPTH + " deep");
        Expression value;
        if (accept("-")) value = new Expression.Negative(unary(false));
        else if (accept("+")) value = unary(false);
        else value = primary();
        value = postfix(value);
        if (withFilters) value = filters(value);
        depth--;
        return value;
    }

    private Expression primary() {
        if (atEnd()) throw wrong("an expression is expected");
        Token token = tokens.get(at++);
        return switch (token.kind()) {
            case NAME -> switch (token.text()) {
                case "true", "True" -> new Expression.Literal(true);
                case "false", "False" -> new Expression.Literal(false);
                case "none", "None" -> new Expression.Literal(null);
                default -> new Expression.Variable(token.text());
            };
            case STRING -> {
                var text = new StringBuilder(token.text());
                while (!atEnd() && tokens.get(at).kind() == Kind.STRING) text.append(tokens.get(at++).text());
                yield new Expression.Literal(text.toString());
            }
            case INTEGER -> new Expression.Literal(integer(token.text()));
            case FLOAT -> new Expression.Literal(Double.valueOf(token.text()));
            case OPERATOR -> switch (token.text()) {
                case "(" -> inBrackets();
                case "[" -> list();
                case "{" -> dict();
                default -> {
                    at--;
                    throw wrong("'" + token.text() + "' is not expected");
                }
            };
        };
    }

    private Long integer(String digits) {
        try {
            return Long.valueOf(digits);
        } catch (NumberFormatException _) {
            throw wrong(digits + " is too large");
        }
    }

    private Expression inBrackets() {
        if (accept(")")) return new Expression.ListOf(List.of());
        Expression inside = tuple();
        expect(")");
        return inside;
    }

    private Expression list() {
        var items = new ArrayList<Expression>();
        while (!accept("]")) {
            if (!items.isEmpty()) {
                expect(",");
                if (accept("]")) break;
            }
            items.add(expression());
        }
        return new Expression.ListOf(items);
    }

    private Expression dict() {
        var entries = new ArrayList<Expression.Entry>();
        while (!accept("}")) {
            if (!entries.isEmpty()) {
                expect(",");
                if (accept("}")) break;
            }
            Expression key = expression();
            expect(":");
            entries.add(new Expression.Entry(key, expression()));
        }
        return new Expression.DictOf(entries);
    }

    private Expression postfix(Expression of) {
        Expression value = of;
        while (true) {
            if (accept(".")) {
                if (atEnd()) throw wrong("a name is expected");
                Token token = tokens.get(at++);
                if (token.kind() == Kind.INTEGER)
                    value = new Expression.Item(value, new Expression.Literal(integer(token.text())));
                else if (token.kind() == Kind.NAME) value = new Expression.Attribute(value, token.text());
                else throw wrong("a name is expected after '.'");
            } else if (accept("[")) value = item(value);
            else if (accept("(")) value = new Expression.Call(value, arguments());
            else return value;
        }
    }

    private Expression item(Expression of) {
        Optional<Expression> from = looksAt(Kind.OPERATOR, ":") ? Optional.empty()
                : Optional.of(tuple());
        if (accept("]")) return new Expression.Item(of, from.orElseThrow());
        expect(":");
        Optional<Expression> to = sliceEnd();
        Optional<Expression> step = accept(":") ? sliceEnd() : Optional.empty();
        expect("]");
        return new Expression.Slice(of, from, to, step);
    }

    private Optional<Expression> sliceEnd() {
        return looksAt(Kind.OPERATOR, ":") || looksAt(Kind.OPERATOR, "]") ? Optional.empty()
                : Optional.of(expression());
    }

    /// Arguments after `(`.
    private Expression.Arguments arguments() {
        var positional = new ArrayList<Expression>();
        var named = new LinkedHashMap<String, Expression>();
        while (!accept(")")) {
            if (!positional.isEmpty() || !named.isEmpty()) {
                expect(",");
                if (accept(")")) break;
            }
            boolean isNamed = !atEnd() && tokens.get(at).kind() == Kind.NAME && at + 1 < tokens.size()
                    && tokens.get(at + 1).is(Kind.OPERATOR, "=");
            if (isNamed) {
                String name = name();
                expect("=");
                if (named.put(name, expression()) != null) throw wrong(name + " is given twice");
            } else if (!named.isEmpty()) throw wrong("a named argument is followed by one without a name");
            else positional.add(expression());
        }
        return new Expression.Arguments(positional, named);
    }

    private Expression filters(Expression of) {
        Expression value = of;
        while (true) {
            if (accept("|")) {
                String name = name();
                value = new Expression.Filter(value, name, accept("(") ? arguments()
                        : Expression.Arguments.NONE);
            } else if (acceptName("is")) value = test(value);
            else if (accept("(")) value = new Expression.Call(value, arguments());
            else return value;
        }
    }

    private Expression test(Expression of) {
        boolean negated = acceptName("not");
        String name = name();
        Expression.Arguments arguments = Expression.Arguments.NONE;
        if (accept("(")) arguments = arguments();
        else if (takesArgument())
            arguments = new Expression.Arguments(List.of(postfix(primary())), Map.of());
        Expression test = new Expression.Test(of, name, arguments);
        return negated ? new Expression.Not(test) : test;
    }

    /// Whether the next token begins the argument of a test without brackets.
    private boolean takesArgument() {
        if (atEnd()) return false;
        Token token = tokens.get(at);
        return switch (token.kind()) {
            case NAME -> !WORDS.contains(token.text());
            case STRING, INTEGER, FLOAT -> true;
            case OPERATOR -> token.text().equals("[") || token.text().equals("{");
        };
    }
}
