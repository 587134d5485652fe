"""The longest way through a function, in instructions, callees included: loops count with their bounds, and those without are named.

Ways that end in a stop of the machine do not count. A repeated string instruction counts as one. A loop is a set of instructions that reach
each other; its bound is that of the source loops whose lines are among them and not among those of a loop inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from dsl.compiler.frames import Frame, successors
from dsl.compiler.link import Step
from pipeline.audit.bounds import Loop, loops_of
from pipeline.audit.code import Code, callee_of

Graph = dict[int, tuple[int, ...]]
NEVER = float("-inf")  # the length of a way that does not come back


@dataclass(frozen=True)
class Body:
    """One function: its name, and what an instruction costs with what it calls, which is asked for only on ways that return."""

    function: str
    cost: Callable[[int], float]


@dataclass
class Longest:
    """Computes longest paths over one program; results are kept. unbounded: loops without a bound, by the function that they are met in.

    listings: how often the loops of a function written in assembly go round.
    """

    code: Code
    loops: Callable[[str], dict[int, Loop]] = loops_of
    listings: Mapping[str, int] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)
    unbounded: dict[str, set[tuple[str, int]]] = field(default_factory=dict)

    def of(self, function: str) -> float:
        """Instructions of the longest path from a function's entry to its return, unbounded loops counted as one round. No recursion.

        NEVER for a function that does not return.
        """
        if function not in self.known:
            steps = self.code.functions[function]
            self.unbounded[function] = set()
            at = {step.address: step for step in steps}
            graph = {
                step.address: tuple(dict.fromkeys(address for address, _ in successors(step, Frame(None), at)))
                for step in steps
            }
            start = steps[0].address
            ends = {step.address for step in steps if not graph[step.address] and step.mnemonic != "ud2"}
            body = Body(function, cache(lambda address: self.cost(function, at[address])))
            self.known[function] = self.path(body, graph, set(reachable(graph, start)), ends)[start]
        return self.known[function]

    def cost(self, function: str, step: Step) -> float:
        """One, and what it calls."""
        callee = callee_of(step, function, self.code.starts)
        if callee is None or callee == function:
            return 1
        below = self.of(callee)
        if below != NEVER:
            self.unbounded[function] |= self.unbounded[callee]
        return 1 + below

    def path(self, body: Body, graph: Graph, inside: set[int], ends: set[int]) -> dict[int, float]:
        """The longest path from each node within `inside` to one of `ends`; a loop is collapsed to one node."""
        best: dict[int, float] = {}
        for component in components(graph, inside):
            ways = [best[target] for node in component for target in graph[node] if target in inside - component]
            after = max([*ways, *([0.0] if component & ends else [])], default=NEVER)
            if after != NEVER:
                first = next(iter(component))
                looping = len(component) > 1 or first in graph[first]
                after += self.loop_weight(body, graph, component, inside) if looping else body.cost(first)
            best.update(dict.fromkeys(component, after))
        return best

    def loop_weight(self, body: Body, graph: Graph, component: set[int], inside: set[int]) -> float:
        """Rounds times the longest round. A round begins at an entry of the loop; ways back to entries are cut."""
        entries = {
            target for node, targets in graph.items() if node in inside and node not in component for target in targets
        } & component or {min(component)}
        cut = {node: tuple(target for target in graph[node] if target not in entries) for node in component}
        ways = self.path(body, cut, component, component)
        round_ = max(ways[entry] for entry in entries)
        nested = set().union(*(inner for inner in components(cut, component) if len(inner) > 1), set())
        return (self.rounds(body.function, component, nested) + 1) * round_

    def rounds(self, function: str, component: set[int], nested: set[int]) -> int:
        """The bound of a loop; 0, and a note, where there is none."""
        inner = {
            self.loop_at(address) for address in nested
        }  # a copy of its test may stand in front of it, in this loop
        loops = {loop for address in component - nested if (loop := self.loop_at(address)) and loop not in inner}
        if not loops and function in self.listings:
            return self.listings[function]
        if not loops or any(loop.bound is None for loop in loops):
            lines = {(loop.file, loop.line) for loop in loops if loop.bound is None}
            places = {self.code.places[address] for address in component - nested if address in self.code.places}
            self.unbounded[function] |= lines or ({min(places)} if places else {(function, 0)})
            return 0
        return max(loop.bound or 0 for loop in loops)

    def loop_at(self, address: int) -> Loop | None:
        """The source loop on whose first line an instruction stands."""
        place = self.code.places.get(address)
        return self.loops(place[0]).get(place[1]) if place else None


def reachable(graph: Graph, start: int) -> Iterable[int]:
    """Every node on a way from `start`."""
    seen = {start}
    pending = [start]
    while pending:
        for target in graph[pending.pop()]:
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return seen


def components(graph: Graph, inside: set[int]) -> list[set[int]]:
    """Strongly connected components, each after all that it leads to (Tarjan's algorithm, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[set[int]] = []
    for root in inside:
        if root in index:
            continue
        work = [(root, iter([target for target in graph[root] if target in inside]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, targets = work[-1]
            target = next(targets, None)
            if target is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component: set[int] = set()
                    while node not in component:
                        component.add(stack.pop())
                    on_stack -= component
                    found.append(component)
            elif target not in index:
                index[target] = low[target] = len(index)
                stack.append(target)
                on_stack.add(target)
                work.append((target, iter([after for after in graph[target] if after in inside])))
            elif target in on_stack:
                low[node] = min(low[node], index[target])
    return found
