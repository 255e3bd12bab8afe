#include "take_back.hpp"

#include <algorithm>

namespace attnflow {

namespace {

// The edges out of a node that carry flow, one after the other: straight ones first, then the records.
class Sent {
   public:
    Sent(const Residual& residual, Node node)
        : node_(node),
          position_(residual.network().position_of(node)),
          links_(&residual.network().links_out_of(residual.network().block_of(node))),
          record_(residual.first_out(node)) {}

    Node node() const { return node_; }
    /// The flow on the edge at hand; stays with an edge that has some, else goes on to the next that has; 0: no more.
    Units find(const Residual& residual) {
        for (; straight_ < links_->size(); ++straight_)
            if (const Units flow = residual.straight_flow((*links_)[straight_], position_)) return flow;
        for (; record_ != 0; record_ = residual.touched(record_).next_out)
            if (const Units flow = residual.touched(record_).flow) return flow;
        return 0;
    }
    void next(const Residual& residual) {
        if (straight_ < links_->size())
            ++straight_;
        else
            record_ = residual.touched(record_).next_out;
    }
    /// Of the edge at hand.
    Node receiver(const Residual& residual) const {
        const Network& net = residual.network();
        if (straight_ == links_->size()) return residual.receiver(residual.touched(record_));
        return net.first_node(net.links()[(*links_)[straight_]].receiver) + position_;
    }
    void cancel(Residual& residual, Units amount) const {
        if (straight_ < links_->size())
            residual.cancel_straight((*links_)[straight_], position_, amount);
        else
            residual.cancel(record_, amount);
    }

   private:
    Node node_;
    std::uint32_t position_;
    const std::vector<std::uint32_t>* links_;
    std::size_t straight_ = 0;  // in links_
    Residual::EdgeId record_;
};

// Cancels every circle that a walk from `roots` comes to without passing `ends`; returns all nodes that it reached, each
// before those it sends to. Cancelling a circle empties an edge, so this ends.
std::vector<Node> in_order(Residual& residual, const std::vector<Node>& roots, const std::vector<bool>& ends,
                           Pulse& pulse) {
    enum : std::uint8_t { unseen, open, finished };
    std::vector<std::uint8_t> state(residual.network().n_nodes(), unseen);
    std::vector<Node> order;
    std::vector<Sent> walk;
    const auto enter = [&](Node node) {
        state[node] = open;
        walk.emplace_back(residual, node);
    };
    for (const Node root : roots) {
        if (state[root] == unseen && !ends[root]) enter(root);
        while (!walk.empty()) {
            pulse.beat();
            if (walk.back().find(residual) == 0) {
                state[walk.back().node()] = finished;
                order.push_back(walk.back().node());
                walk.pop_back();
                if (!walk.empty()) walk.back().next(residual);
                continue;
            }
            const Node to = walk.back().receiver(residual);
            if (state[to] == unseen && !ends[to]) {
                enter(to);
            } else if (state[to] == finished || ends[to]) {
                walk.back().next(residual);
            } else {  // a circle: from where `to` stands on the walk to its end
                std::size_t first = walk.size();
                Units least = unbounded;
                do {
                    --first;
                    least = std::min(least, walk[first].find(residual));
                } while (walk[first].node() != to);
                std::size_t empty = walk.size();  // the first edge of the circle that is left without flow
                for (std::size_t i = walk.size(); i-- > first;) {
                    const bool all = walk[i].find(residual) == least;
                    walk[i].cancel(residual, least);
                    if (all) empty = i;
                }
                for (std::size_t i = empty + 1; i < walk.size(); ++i) state[walk[i].node()] = unseen;  // walked again
                walk.erase(walk.begin() + static_cast<std::ptrdiff_t>(empty) + 1, walk.end());
            }
        }
    }
    std::reverse(order.begin(), order.end());
    return order;
}

}  // namespace

void take_back(Residual& residual, const std::vector<Node>& roots, std::vector<Units>& excess,
               const std::vector<bool>& ends, Pulse& pulse) {
    for (const Node node : in_order(residual, roots, ends, pulse)) {
        if (excess[node] == 0) continue;
        pulse.beat();
        for (Sent sent(residual, node); excess[node] > 0; sent.next(residual)) {
            const Units amount = std::min(excess[node], sent.find(residual));
            if (amount == 0) break;
            sent.cancel(residual, amount);
            excess[node] -= amount;
            excess[sent.receiver(residual)] += amount;
        }
    }
}

}  // namespace attnflow
