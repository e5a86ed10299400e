// Command model is the workload of the demonstration: a model server in one
// static program. It learns to tell three kinds of iris apart when it starts,
// and answers over HTTP. The flowers that it learns from are drawn at random
// around the means that were published for the three kinds.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// flower is sepal length and width, petal length and width, in centimetres.
type flower [4]float64

// kinds are the classes, with mean and spread of each measure.
var kinds = []struct {
	Name         string
	Mean, Spread flower
}{
	{"setosa", flower{5.01, 3.43, 1.46, 0.25}, flower{0.35, 0.38, 0.17, 0.11}},
	{"versicolor", flower{5.94, 2.77, 4.26, 1.33}, flower{0.52, 0.31, 0.47, 0.20}},
	{"virginica", flower{6.59, 2.97, 5.55, 2.03}, flower{0.64, 0.32, 0.55, 0.27}},
}

// classifier is multinomial logistic regression: a row of weights and a bias
// for each kind.
type classifier [3][5]float64

func main() {
	address := ":" + cmp.Or(os.Getenv("PORT"), "8080")
	began := time.Now()
	random := rand.New(rand.NewPCG(1936, 7))
	var c classifier
	flowers, labels := draw(random, 300)
	c.Train(flowers, labels, 400)
	test, want := draw(random, 300)
	log.Printf("trained on %d flowers in %s, accuracy %.3f", len(flowers), time.Since(began).Round(time.Millisecond), c.Accuracy(test, want))
	http.HandleFunc("GET /predict", c.predict)
	http.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	log.Printf("listening on %s", address)
	log.Fatal(http.ListenAndServe(address, nil))
}

// draw returns n flowers, a third of each kind, and their kinds.
func draw(random *rand.Rand, n int) ([]flower, []int) {
	flowers, labels := make([]flower, n), make([]int, n)
	for i := range n {
		k := i % len(kinds)
		labels[i] = k
		for j := range flowers[i] {
			flowers[i][j] = kinds[k].Mean[j] + kinds[k].Spread[j]*random.NormFloat64()
		}
	}
	return flowers, labels
}

// Train descends the gradient of the log loss.
func (c *classifier) Train(flowers []flower, labels []int, epochs int) {
	const rate = 0.05
	for range epochs {
		for i, f := range flowers {
			p := c.Probabilities(f)
			for k := range c {
				slope := p[k]
				if k == labels[i] {
					slope--
				}
				for j, v := range f {
					c[k][j] -= rate * slope * v
				}
				c[k][4] -= rate * slope
			}
		}
	}
}

// Probabilities returns how likely f is of each kind.
func (c *classifier) Probabilities(f flower) [3]float64 {
	var p [3]float64
	highest := math.Inf(-1)
	for k := range c {
		p[k] = c[k][4]
		for j, v := range f {
			p[k] += c[k][j] * v
		}
		highest = max(highest, p[k])
	}
	sum := 0.0
	for k := range p {
		p[k] = math.Exp(p[k] - highest)
		sum += p[k]
	}
	for k := range p {
		p[k] /= sum
	}
	return p
}

// Classify returns the likeliest kind.
func (c *classifier) Classify(f flower) int {
	p, best := c.Probabilities(f), 0
	for k := range p {
		if p[k] > p[best] {
			best = k
		}
	}
	return best
}

// Accuracy is the share of flowers that are classified as labelled.
func (c *classifier) Accuracy(flowers []flower, labels []int) float64 {
	right := 0
	for i, f := range flowers {
		if c.Classify(f) == labels[i] {
			right++
		}
	}
	return float64(right) / float64(len(flowers))
}

// predict answers /predict?x=5.1,3.5,1.4,0.2.
func (c *classifier) predict(w http.ResponseWriter, r *http.Request) {
	var f flower
	fields := strings.Split(r.FormValue("x"), ",")
	if len(fields) != len(f) {
		http.Error(w, "x is four numbers: sepal length and width, petal length and width", http.StatusBadRequest)
		return
	}
	for i, s := range fields {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f[i] = v
	}
	k := c.Classify(f)
	log.Printf("predict %v: %s", f, kinds[k].Name)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client may be gone
		"kind": kinds[k].Name, "probability": math.Round(c.Probabilities(f)[k]*1000) / 1000,
	})
}
