package registry

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

func (r *Registry) allowed(req *http.Request) bool {
	if r.Token {
		token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "+bearer)
		return ok && r.use(r.TokenUses, "token"+token)
	}
	user, password, _ := req.BasicAuth()
	return r.Username == "" || user == r.Username && password == r.Password
}

func (r *Registry) challenge(w http.ResponseWriter, req *http.Request) {
	how := `Basic realm="test"`
	if r.Token {
		how = fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:any:pull"`, req.Host)
	}
	w.Header().Set("WWW-Authenticate", how)
	fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
}

// token gives the bearer token to who proves to be the user, or to anybody where
// there is none.
func (r *Registry) token(w http.ResponseWriter, req *http.Request) {
	user, password, _ := req.BasicAuth()
	ok := r.Username == "" || user == r.Username && password == r.Password
	if req.Method == http.MethodPost {
		ok = r.RefreshToken != "" && req.FormValue("refresh_token") == r.RefreshToken
	}
	if !ok {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	token := bearer
	if r.TokenUses > 0 {
		token += strconv.FormatInt(r.tokens.Add(1), 10)
	}
	fmt.Fprintf(w, `{"token":%q,"access_token":%q}`, token, token)
}

// BearerToken is the token that a request may bring itself.
const BearerToken = bearer
