//go:build !unix

package httpd_test

func runAsChild() bool { return false }
