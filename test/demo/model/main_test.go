package main

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestModelLearnsAndAnswers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var c classifier
	flowers, labels := draw(random, 300)
	c.Train(flowers, labels, 200)
	test, want := draw(random, 300)
	if a := c.Accuracy(test, want); a < 0.9 {
		t.Errorf("accuracy %.3f", a)
	}
	for query, answer := range map[string]string{"5.0,3.4,1.5,0.2": "setosa", "6.6,3.0,5.6,2.1": "virginica"} {
		w := httptest.NewRecorder()
		c.predict(w, httptest.NewRequest(http.MethodGet, "/predict?x="+query, nil))
		if !strings.Contains(w.Body.String(), answer) {
			t.Errorf("predict %s: %s, want %s", query, w.Body.String(), answer)
		}
	}
	w := httptest.NewRecorder()
	c.predict(w, httptest.NewRequest(http.MethodGet, "/predict?x=1,2", nil))
	if w.Code != http.StatusBadRequest {
		t.Errorf("two numbers gave %d", w.Code)
	}
}
