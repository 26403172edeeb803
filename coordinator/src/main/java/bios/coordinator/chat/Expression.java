package bios.coordinator.chat;

import java.util.List;
import java.util.Map;
import java.util.Optional;

/// An expression of a template.
sealed interface Expression {
    record Literal(Object value) implements Expression {}

    record Variable(String name) implements Expression {}

    record ListOf(List<Expression> items) implements Expression {}

    record DictOf(List<Entry> entries) implements Expression {}

    /// One entry of a [DictOf].
    record Entry(Expression key, Expression value) {}

    record Attribute(Expression of, String name) implements Expression {}

    record Item(Expression of, Expression key) implements Expression {}

    record Slice(Expression of, Optional<Expression> from, Optional<Expression> to,
            Optional<Expression> step) implements Expression {}

    record Call(Expression function, Arguments arguments) implements Expression {}

    /// `of | name(arguments)`.
    record Filter(Expression of, String name, Arguments arguments) implements Expression {}

    /// `of is name(arguments)`.
    record Test(Expression of, String name, Arguments arguments) implements Expression {}

    record Not(Expression of) implements Expression {}

    record Negative(Expression of) implements Expression {}

    record And(Expression left, Expression right) implements Expression {}

    record Or(Expression left, Expression right) implements Expression {}

    /// @param operator `+ - * / // % ** ~`
    record Binary(String operator, Expression left, Expression right) implements Expression {}

    /// A chain of comparisons: `first < second <= third`.
    record Comparison(Expression first, List<Comparand> rest) implements Expression {}

    /// @param operator `== != < <= > >= in`, or `not in`
    record Comparand(String operator, Expression value) {}

    record Conditional(Expression test, Expression then, Optional<Expression> otherwise)
            implements Expression {}

    /// The arguments of a call.
    record Arguments(List<Expression> positional, Map<String, Expression> named) {
        static final Arguments NONE = new Arguments(List.of(), Map.of());
    }
}
