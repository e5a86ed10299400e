package telemetry

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/klog/v2"

	"github.com/berth-run/berth/pkg/errs"
	"github.com/berth-run/berth/pkg/internal/stage"
)

const scope = "github.com/berth-run/berth"

// provider sends spans to the collector of o, beside the requests.
func provider(ctx context.Context, o Options) (*sdktrace.TracerProvider, error) {
	otel.SetErrorHandler(&complaints{log: klog.FromContext(ctx)}) // which there is one of in a process
	options := []otlptracegrpc.Option{otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(o.TraceEndpoint)}
	if strings.Contains(o.TraceEndpoint, "://") {
		if _, err := url.Parse(o.TraceEndpoint); err != nil {
			return nil, fmt.Errorf("trace endpoint: %w: %w", errs.Invalid, err)
		}
		options = []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(o.TraceEndpoint)}
	}
	exporter, err := otlptracegrpc.New(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("trace endpoint %q: %w: %w", o.TraceEndpoint, errs.Invalid, err)
	}
	self := resource.NewSchemaless(attribute.String("service.name", "berthd"), attribute.String("service.version", o.Version))
	sampler := sdktrace.ParentBased(sdktrace.TraceIDRatioBased(float64(o.TraceSamplingPerMillion) / 1e6))
	return sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(self), sdktrace.WithSampler(sampler)), nil
}

// complaints logs that spans are lost, now and then.
type complaints struct {
	log  klog.Logger
	last atomic.Int64 // in Unix seconds
}

const complainEvery = 60 // seconds

// Handle implements otel.ErrorHandler.
func (c *complaints) Handle(err error) {
	now, last := time.Now().Unix(), c.last.Load()
	if now-last >= complainEvery && c.last.CompareAndSwap(last, now) {
		c.log.Error(err, "Traces are lost: is the collector at telemetry.trace_endpoint there?")
	}
}

// tracer makes spans; the zero value makes none.
type tracer struct{ trace.Tracer }

// span may have no span in it.
type span struct{ trace.Span }

// carrier reads the headers of a request.
type carrier func(key string) string

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string { return c(key) }

// Set implements propagation.TextMapCarrier.
func (carrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (carrier) Keys() []string { return nil }

func (t tracer) request(ctx context.Context, method string, header func(string) string) (context.Context, span) {
	if t.Tracer == nil {
		return ctx, span{}
	}
	ctx = propagation.TraceContext{}.Extract(ctx, carrier(header))
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	ctx, s := t.Start(ctx, service+"/"+name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", name)))
	return ctx, span{s}
}

func (t tracer) stage(ctx context.Context, name string) (context.Context, span) {
	if t.Tracer == nil {
		return ctx, span{}
	}
	ctx, s := t.Start(ctx, name)
	return ctx, span{s}
}

func (t tracer) recording(ctx context.Context) bool {
	return t.Tracer != nil && trace.SpanFromContext(ctx).IsRecording()
}

// past makes a span of a stage of berth-runtime.
func (t tracer) past(ctx context.Context, p stage.Passed) {
	if t.Tracer == nil {
		return
	}
	_, s := t.Start(ctx, p.Name, trace.WithTimestamp(p.Begun), trace.WithAttributes(attribute.String("process", "berth-runtime")))
	if p.Error != "" {
		s.SetStatus(codes.Error, p.Error)
	}
	s.End(trace.WithTimestamp(p.Begun.Add(p.Took)))
}

func (s span) end(code string) {
	if s.Span == nil {
		return
	}
	s.SetAttributes(attribute.String("rpc.grpc.status", code))
	if code != codeOK {
		s.SetStatus(codes.Error, code)
	}
	s.End()
}

func (s span) endWith(err error) {
	if s.Span == nil {
		return
	}
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.End()
}
