package bios.coordinator.chat;

import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/// Renders the statements of a template once.
final class Renderer {
    private static final long MAX_RANGE = 100_000;

    private final RenderBudget budget;
    private final ZonedDateTime now;
    private int loops;

    /// What happens after a statement.
    private enum Flow { NEXT, BREAK, CONTINUE }

    Renderer(RenderBudget budget, ZonedDateTime now) {
        this.budget = budget;
        this.now = now;
    }

    String render(List<Statement> body, Map<String, Object> variables) {
        var globals = new Scope(null);
        globals.set("range", (Callable) (arguments, _) -> range(arguments));
        globals.set("namespace", (Callable) Renderer::namespace);
        globals.set("dict", (Callable) (arguments, named) -> namespace(arguments, named).values());
        globals.set("raise_exception", (Callable) (arguments, _) -> {
            throw new TemplateException(arguments.isEmpty() ? "it raises an exception"
                    : Values.text(arguments.getFirst()));
        });
        globals.set("strftime_now", (Callable) (arguments, _) ->
                time(Values.string(arguments.isEmpty() ? null : arguments.getFirst())));
        var scope = new Scope(globals);
        variables.forEach(scope::set);
        var out = new StringBuilder();
        execute(body, scope, out);
        return out.toString();
    }

    private static Attributes.Namespace namespace(List<Object> arguments, Map<String, Object> named) {
        var values = new LinkedHashMap<String, Object>();
        for (Object given : arguments) {
            if (!(given instanceof Map<?, ?> map)) throw new TemplateException("namespace: "
                    + Values.kind(given) + " is no object");
            map.forEach((name, value) -> values.put(Values.string(name), value));
        }
        values.putAll(named);
        return new Attributes.Namespace(values);
    }

    private static Object range(List<Object> arguments) {
        if (arguments.isEmpty() || arguments.size() > 3)
            throw new TemplateException("range: one to three arguments are expected");
        long from = arguments.size() == 1 ? 0 : Values.integer(arguments.get(0));
        long to = Values.integer(arguments.get(arguments.size() == 1 ? 0 : 1));
        long step = arguments.size() == 3 ? Values.integer(arguments.get(2)) : 1;
        if (step == 0) throw new TemplateException("range: the step is 0");
        var numbers = new ArrayList<Object>();
        for (long i = from; step > 0 ? i < to : i > to; i += step) {
            if (numbers.size() == MAX_RANGE)
                throw new TemplateException("range: more than " + MAX_RANGE + " numbers");
            numbers.add(i);
        }
        return numbers;
    }

    private String time(String format) {
        var out = new StringBuilder();
        for (int i = 0; i < format.length(); i++) {
            char c = format.charAt(i);
            if (c != '%' || i + 1 == format.length()) {
                out.append(c);
                continue;
            }
            String pattern = switch (format.charAt(++i)) {
                case 'd' -> "dd";
                case 'm' -> "MM";
                case 'y' -> "yy";
                case 'Y' -> "yyyy";
                case 'b' -> "MMM";
                case 'B' -> "MMMM";
                case 'a' -> "EEE";
                case 'A' -> "EEEE";
                case 'H' -> "HH";
                case 'I' -> "hh";
                case 'M' -> "mm";
                case 'S' -> "ss";
                case 'p' -> "a";
                case 'j' -> "DDD";
                case 'F' -> "yyyy-MM-dd";
                case 'T' -> "HH:mm:ss";
                case 'Z' -> "zzz";
                case '%' -> "'%'";
                default -> throw new TemplateException("strftime_now: %" + format.charAt(i)
                        + " is not supported");
            };
            out.append(DateTimeFormatter.ofPattern(pattern, Locale.US).format(now));
        }
        return out.toString();
    }

    // ---- statements ----

    private Flow execute(List<Statement> body, Scope scope, StringBuilder out) {
        for (Statement statement : body) {
            Flow flow = execute(statement, scope, out);
            if (flow != Flow.NEXT) return flow;
        }
        return Flow.NEXT;
    }

    private void write(String text, StringBuilder out) {
        budget.pay(1 + text.length() / 4);
        RenderBudget.checkSize((long) out.length() + text.length());
        out.append(text);
    }

    private String text(List<Statement> body, Scope scope) {
        var out = new StringBuilder();
        execute(body, scope, out);
        return out.toString();
    }

    private Flow execute(Statement statement, Scope scope, StringBuilder out) {
        budget.pay(1);
        return switch (statement) {
            case Statement.Text(var text) -> {
                write(text, out);
                yield Flow.NEXT;
            }
            case Statement.Output(var value) -> {
                write(Values.text(evaluate(value, scope)), out);
                yield Flow.NEXT;
            }
            case Statement.If(var branches, var otherwise) -> {
                for (Statement.Branch branch : branches)
                    if (Values.truth(evaluate(branch.condition(), scope)))
                        yield execute(branch.body(), scope, out);
                yield execute(otherwise, scope, out);
            }
            case Statement.For loop -> loop(loop, scope, out);
            case Statement.Assign(var targets, var value) -> {
                assign(targets, evaluate(value, scope), scope);
                yield Flow.NEXT;
            }
            case Statement.AssignAttribute(var name, var attribute, var value) -> {
                if (!(scope.get(name) instanceof Attributes.Namespace(var values)))
                    throw new TemplateException("'" + name + "' is no namespace, which alone can be set");
                values.put(attribute, evaluate(value, scope));
                yield Flow.NEXT;
            }
            case Statement.AssignText(var target, var body) -> {
                scope.set(target, text(body, new Scope(scope)));
                yield Flow.NEXT;
            }
            case Statement.Macro macro -> {
                scope.set(macro.name(), (Callable) (arguments, named) ->
                        call(macro, scope, arguments, named));
                yield Flow.NEXT;
            }
            case Statement.With(var assignments, var body) -> {
                var inner = new Scope(scope);
                for (Statement.Assign one : assignments)
                    assign(one.targets(), evaluate(one.value(), scope), inner);
                yield execute(body, inner, out);
            }
            case Statement.Generation(var body) -> execute(body, scope, out);
            case Statement.Break() -> Flow.BREAK;
            case Statement.Continue() -> Flow.CONTINUE;
        };
    }

    private static void assign(List<String> targets, Object value, Scope scope) {
        if (targets.size() == 1) {
            scope.set(targets.getFirst(), value);
            return;
        }
        List<Object> parts = Values.items(value);
        if (parts.size() != targets.size()) throw new TemplateException(parts.size()
                + " values cannot be assigned to " + targets.size() + " names");
        for (int i = 0; i < parts.size(); i++) scope.set(targets.get(i), parts.get(i));
    }

    private Flow loop(Statement.For loop, Scope scope, StringBuilder out) {
        List<Object> items = Values.items(evaluate(loop.items(), scope));
        if (loop.filter().isPresent()) {
            var taken = new ArrayList<Object>();
            for (Object item : items) {
                var inner = new Scope(scope);
                assign(loop.targets(), item, inner);
                if (Values.truth(evaluate(loop.filter().get(), inner))) taken.add(item);
            }
            items = taken;
        }
        if (items.isEmpty()) return execute(loop.otherwise(), scope, out);
        loops++;
        for (int i = 0; i < items.size(); i++) {
            var inner = new Scope(scope);
            inner.set("loop", new Loop(items, i, loops));
            assign(loop.targets(), items.get(i), inner);
            if (execute(loop.body(), inner, out) == Flow.BREAK) break;
        }
        loops--;
        return Flow.NEXT;
    }

    private Object call(Statement.Macro macro, Scope around, List<Object> arguments,
            Map<String, Object> named) {
        budget.enter();
        var scope = new Scope(around);
        var left = new HashMap<>(named);
        if (arguments.size() > macro.parameters().size())
            throw new TemplateException("the macro " + macro.name() + " has "
                    + macro.parameters().size() + " parameters");
        for (int i = 0; i < macro.parameters().size(); i++) {
            Statement.Parameter parameter = macro.parameters().get(i);
            boolean isNamed = left.containsKey(parameter.name());
            Object given = isNamed ? left.remove(parameter.name()) : null;
            scope.set(parameter.name(), i < arguments.size() ? arguments.get(i) : isNamed ? given
                    : parameter.value().map(value -> evaluate(value, scope))
                    .orElseGet(() -> parameter.value().isPresent() ? null : new Undefined(parameter.name())));
        }
        if (!left.isEmpty()) throw new TemplateException("the macro " + macro.name()
                + " has no parameter " + left.keySet().iterator().next());
        Object text = text(macro.body(), scope);
        budget.leave();
        return text;
    }

    // ---- expressions ----

    private Object evaluate(Expression expression, Scope scope) {
        budget.pay(1);
        return switch (expression) {
            case Expression.Literal(var value) -> value;
            case Expression.Variable(var name) -> scope.get(name);
            case Expression.ListOf(var items) -> {
                var list = new ArrayList<Object>();
                for (Expression item : items) list.add(evaluate(item, scope));
                yield list;
            }
            case Expression.DictOf(var entries) -> {
                var map = new LinkedHashMap<Object, Object>();
                for (Expression.Entry entry : entries)
                    map.put(evaluate(entry.key(), scope), evaluate(entry.value(), scope));
                yield map;
            }
            case Expression.Attribute(var of, var name) -> attribute(evaluate(of, scope), name);
            case Expression.Item(var of, var key) -> item(evaluate(of, scope), evaluate(key, scope));
            case Expression.Slice slice -> budget.pay(Values.slice(budget.pay(evaluate(slice.of(), scope)),
                    optional(slice.from(), scope), optional(slice.to(), scope),
                    optional(slice.step(), scope)));
            case Expression.Call(var function, var arguments) -> call(function, arguments, scope);
            case Expression.Filter(var of, var name, var arguments) -> budget.pay(Filters.apply(name,
                    budget.pay(evaluate(of, scope)), positional(arguments, scope), named(arguments, scope)));
            case Expression.Test(var of, var name, var arguments) -> ValueTests.holds(name,
                    budget.pay(evaluate(of, scope)), positional(arguments, scope));
            case Expression.Not(var of) -> !Values.truth(evaluate(of, scope));
            case Expression.Negative(var of) -> Values.binary("-", 0L, evaluate(of, scope));
            case Expression.And(var left, var right) -> {
                Object first = evaluate(left, scope);
                yield Values.truth(first) ? evaluate(right, scope) : first;
            }
            case Expression.Or(var left, var right) -> {
                Object first = evaluate(left, scope);
                yield Values.truth(first) ? first : evaluate(right, scope);
            }
            case Expression.Binary(var operator, var left, var right) -> budget.pay(Values.binary(operator,
                    evaluate(left, scope), evaluate(right, scope)));
            case Expression.Comparison(var first, var rest) -> compare(first, rest, scope);
            case Expression.Conditional(var test, var then, var otherwise) ->
                    Values.truth(evaluate(test, scope)) ? evaluate(then, scope)
                            : otherwise.isPresent() ? evaluate(otherwise.get(), scope) : new Undefined("if");
        };
    }

    private Object optional(Optional<Expression> expression, Scope scope) {
        return expression.isEmpty() ? null : evaluate(expression.get(), scope);
    }

    private List<Object> positional(Expression.Arguments arguments, Scope scope) {
        var values = new ArrayList<Object>();
        for (Expression argument : arguments.positional()) values.add(evaluate(argument, scope));
        return Collections.unmodifiableList(values);
    }

    private Map<String, Object> named(Expression.Arguments arguments, Scope scope) {
        var values = new LinkedHashMap<String, Object>();
        arguments.named().forEach((name, value) -> values.put(name, evaluate(value, scope)));
        return values;
    }

    private static Object attribute(Object of, String name) {
        if (of instanceof Undefined(var missing))
            throw new TemplateException("'" + missing + "' is not defined");
        if (of instanceof Attributes object) return object.attribute(name);
        var method = Methods.of(of, name);
        return method.isPresent() ? method.get() : Values.item(of, name);
    }

    private static Object item(Object of, Object key) {
        if (of instanceof Attributes object && key instanceof String name) return object.attribute(name);
        Object item = Values.item(of, key);
        return item instanceof Undefined && key instanceof String name && !(of instanceof Undefined)
                ? Methods.of(of, name).<Object>map(method -> method).orElse(item) : item;
    }

    private Object call(Expression function, Expression.Arguments arguments, Scope scope) {
        Object target = function instanceof Expression.Attribute(var of, var method)
                ? attribute(budget.pay(evaluate(of, scope)), method) : evaluate(function, scope);
        if (!(target instanceof Callable callable)) throw new TemplateException(switch (function) {
            case Expression.Attribute(_, var name) -> "there is no method " + name;
            case Expression.Variable(var name) -> "there is no function " + name;
            default -> Values.kind(target) + " cannot be called";
        });
        return budget.pay(callable.call(positional(arguments, scope), named(arguments, scope)));
    }

    private boolean compare(Expression first, List<Expression.Comparand> rest, Scope scope) {
        Object left = evaluate(first, scope);
        for (Expression.Comparand next : rest) {
            Object right = budget.pay(evaluate(next.value(), scope));
            boolean holds = switch (next.operator()) {
                case "==" -> Values.equal(left, right);
                case "!=" -> !Values.equal(left, right);
                case "in" -> Values.contains(right, left);
                case "not in" -> !Values.contains(right, left);
                case "<" -> Values.compare(left, right) < 0;
                case "<=" -> Values.compare(left, right) <= 0;
                case ">" -> Values.compare(left, right) > 0;
                default -> Values.compare(left, right) >= 0;
            };
            if (!holds) return false;
            left = right;
        }
        return true;
    }
}
